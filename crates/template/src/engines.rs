//! The facade: renders and parses by engine name, with sources, limits and a cache.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{TemplateError, code};
use crate::library::{Cache, NtcTemplates, TtpChoice, TtpTemplates};
use crate::source::{Fetch, Sources};
use crate::{Limits, Parser, Renderer, jinja2, regexp, string, textfsm, ttp};

/// What the engines may do and where they look.
#[derive(Clone)]
pub struct Config {
    /// `template.dirs`: folders below which `file://` templates may lie.
    pub template_dirs: Vec<PathBuf>,
    /// `template.remote_hosts`: hosts from which templates may be fetched.
    pub remote_hosts: Vec<String>,
    /// Where ntc-templates may lie, best first; see [`Config::with_environment`].
    pub ntc_dirs: Vec<PathBuf>,
    /// Where ttp-templates may lie, best first; see [`Config::with_environment`].
    pub ttp_dirs: Vec<PathBuf>,
    /// Bounds of every compile, render and parse.
    pub limits: Limits,
    /// How many compiled templates are kept, for renderers and for parsers.
    pub cache_size: usize,
    /// Fetches URLs from [`Config::remote_hosts`].
    pub fetch: Option<Arc<dyn Fetch>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            template_dirs: Vec::new(),
            remote_hosts: Vec::new(),
            ntc_dirs: Vec::new(),
            ttp_dirs: Vec::new(),
            limits: Limits::default(),
            cache_size: 1024,
            fetch: None,
        }
    }
}

impl Config {
    /// Puts `NET_TEXTFSM` and `NTC_TEMPLATES_DIR` in front of the configured `template.ntc_dir`,
    /// as Netmiko does, and `TTP_TEMPLATES_DIR` in front of `template.ttp_dir`.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        let found = |names: &[&str], configured: Vec<PathBuf>| -> Vec<PathBuf> {
            names
                .iter()
                .filter_map(std::env::var_os)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
                .chain(configured)
                .collect()
        };
        self.ntc_dirs = found(&["NET_TEXTFSM", "NTC_TEMPLATES_DIR"], self.ntc_dirs);
        self.ttp_dirs = found(&["TTP_TEMPLATES_DIR"], self.ttp_dirs);
        self
    }
}

/// A call to [`Engines::parse`]; the fields of `/template/parse`.
#[derive(Clone, Debug, Default)]
pub struct ParseCall<'c> {
    /// `textfsm`, `ttp`, `regex` or a registered parser.
    pub name: &'c str,
    /// Template, or its source, or (textfsm) its name in ntc-templates.
    pub template: Option<&'c str>,
    /// The text to parse.
    pub text: &'c str,
    /// Choose the template by platform and command from ntc-templates.
    pub use_ntc_template: bool,
    /// `{"platform": ..., "command": ...}` for that.
    pub ntc_template_args: Option<&'c Value>,
    /// Choose the template by platform and command from ttp-templates.
    pub use_ttp_template: bool,
    /// `{"platform": ..., "command": ...}` for that; or `yang`, `misc`, `path`.
    pub ttp_template_args: Option<&'c Value>,
    /// Platform of the device, used where the arguments name none.
    pub platform: Option<&'c str>,
    /// Command that gave the text, used where the arguments name none.
    pub command: Option<&'c str>,
    /// Options of the engine.
    pub args: Option<&'c Value>,
}

/// Compiles a template for a registered parser: text, `args`, limits.
pub type CompileParser = fn(&str, &Value, &Limits) -> Result<Arc<dyn Parser>, TemplateError>;

/// The renderers that [`Engines::render`] knows.
const RENDERERS: &[&str] = &["jinja2", "string"];

/// All engines behind one door. Cheap to share; every method blocks for the time of the work, so
/// callers on an async runtime run it on a blocking thread.
///
/// ```
/// use netpulse_template::{Config, Engines, ParseCall};
/// use serde_json::json;
///
/// let engines = Engines::new(Config::default());
/// let text = engines.render("jinja2", "hostname {{ name }}", &json!({"name": "r1"}), None)?;
/// assert_eq!(text, "hostname r1");
///
/// let rows = engines.parse(&ParseCall {
///     name: "textfsm",
///     template: Some("Value NAME (\\S+)\n\nStart\n  ^hostname ${NAME} -> Record\n"),
///     text: &text,
///     ..ParseCall::default()
/// })?;
/// assert_eq!(rows, json!([{"NAME": "r1"}]));
/// # Ok::<(), netpulse_template::TemplateError>(())
/// ```
pub struct Engines {
    sources: Sources,
    limits: Limits,
    ntc: Option<NtcTemplates>,
    ttp: Option<TtpTemplates>,
    ttp_files: Arc<TtpFiles>,
    renderers: Mutex<Cache<dyn Renderer>>,
    parsers: Mutex<Cache<dyn Parser>>,
    fsms: Mutex<Cache<textfsm::Template>>,
    compilers: BTreeMap<&'static str, CompileParser>,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines").field("sources", &self.sources).finish_non_exhaustive()
    }
}

fn key(engine: &str, args: &str, text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [engine, args, text] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

fn compile_regex(text: &str, _: &Value, limits: &Limits) -> Result<Arc<dyn Parser>, TemplateError> {
    Ok(Arc::new(regexp::Template::compile(text, limits)?))
}

/// What a TTP template may read: `ttp://` from ttp-templates, files below `template.dirs`.
#[derive(Debug)]
struct TtpFiles {
    templates: Option<TtpTemplates>,
    sources: Sources,
}

impl ttp::Files for TtpFiles {
    fn read(&self, path: &str) -> Option<String> {
        let text = if path.trim_start().starts_with("ttp://") {
            self.templates.as_ref()?.by_path(path)
        } else {
            self.sources.load(&format!("file://{path}")).map(std::borrow::Cow::into_owned)
        };
        text.inspect_err(|why| tracing::debug!(path, "a path in a TTP template gives no text: {why}")).ok()
    }

    fn list(&self, _: &str) -> Option<Vec<String>> {
        None
    }
}

fn compile_ttp(text: &str, files: Arc<TtpFiles>, limits: &Limits) -> Result<Arc<dyn Parser>, TemplateError> {
    let options = ttp::Options {
        max_template: limits.template_bytes,
        max_text: limits.input_bytes,
        timeout: limits.time,
        files: Some(files),
        ..ttp::Options::default()
    };
    let template = ttp::Template::compile(text, &options).map_err(|error| ttp_error(error, code::SYNTAX))?;
    Ok(Arc::new(Ttp(template)))
}

/// A TTP template behind the facade's trait.
struct Ttp(ttp::Template);

impl Parser for Ttp {
    fn parse(&self, text: &str) -> Result<Value, TemplateError> {
        self.0.parse(text).map_err(|error| ttp_error(error, code::PARSE))
    }
}

/// TTP's own words for what went wrong, in the facade's codes; `otherwise` where the step decides.
fn ttp_error(error: ttp::TtpError, otherwise: &'static str) -> TemplateError {
    let code = match error.code {
        "limit" => code::LIMIT,
        "python" | "unsupported" => code::UNSUPPORTED,
        "io" => code::SOURCE_DENIED,
        _ => otherwise,
    };
    TemplateError { engine: "ttp", message: error.message, line: error.line, code }
}

fn request(engine: &'static str, message: impl Into<String>) -> TemplateError {
    TemplateError::new(engine, code::REQUEST, message)
}

impl Engines {
    /// Builds the engines; looks for ntc-templates once.
    pub fn new(config: Config) -> Self {
        let template_bytes = config.limits.template_bytes;
        let sources = Sources {
            dirs: config.template_dirs,
            remote_hosts: config.remote_hosts,
            fetch: config.fetch,
            template_bytes,
        };
        let ttp = TtpTemplates::find(&config.ttp_dirs, template_bytes);
        Self {
            ttp_files: Arc::new(TtpFiles { templates: ttp.clone(), sources: sources.clone() }),
            ttp,
            sources,
            ntc: NtcTemplates::find(&config.ntc_dirs, template_bytes),
            limits: config.limits,
            renderers: Mutex::new(Cache::new(config.cache_size)),
            parsers: Mutex::new(Cache::new(config.cache_size)),
            fsms: Mutex::new(Cache::new(config.cache_size)),
            compilers: BTreeMap::from([("regex", compile_regex as CompileParser)]),
        }
    }

    /// Adds a parser under a name of its own.
    #[must_use]
    pub fn with_parser(mut self, name: &'static str, compile: CompileParser) -> Self {
        self.compilers.insert(name, compile);
        self
    }

    /// The renderers' names.
    #[must_use]
    pub fn renderers(&self) -> Vec<&'static str> {
        RENDERERS.to_vec()
    }

    /// The parsers' names, those added included.
    #[must_use]
    pub fn parsers(&self) -> Vec<&'static str> {
        ["textfsm", "ttp"].into_iter().chain(self.compilers.keys().copied()).collect()
    }

    /// The folder of ntc-templates in use.
    pub fn ntc_folder(&self) -> Option<&std::path::Path> {
        self.ntc.as_ref().map(NtcTemplates::folder)
    }

    /// How many compiled templates are kept at the moment.
    pub fn cached(&self) -> usize {
        self.renderers.lock().len() + self.parsers.lock().len() + self.fsms.lock().len()
    }

    /// Renders a template (or the template a source names) with a context.
    ///
    /// # Errors
    /// `template_not_found` for an unknown engine; else what the source or the engine says.
    pub fn render(
        &self,
        name: &str,
        template: &str,
        context: &Value,
        args: Option<&Value>,
    ) -> Result<String, TemplateError> {
        let text = self.sources.load(template)?;
        let shown = args.map(Value::to_string).unwrap_or_default();
        let key = key(name, &shown, &text);
        let cached = self.renderers.lock().get(&key);
        let renderer: Arc<dyn Renderer> = match cached {
            Some(renderer) => renderer,
            None => {
                let fresh: Arc<dyn Renderer> = match name {
                    "jinja2" => {
                        let options = jinja2::Options::from_args(args.unwrap_or(&Value::Null))?;
                        Arc::new(jinja2::Template::compile(&text, &options, &self.limits)?)
                    }
                    "string" => Arc::new(string::Template::compile(&text, &self.limits)?),
                    other => {
                        return Err(TemplateError::new(
                            "source",
                            code::NOT_FOUND,
                            format!("there is no renderer '{other}': use jinja2 or string"),
                        ));
                    }
                };
                self.renderers.lock().put(key, Arc::clone(&fresh));
                fresh
            }
        };
        renderer.render(context)
    }

    /// Parses a text.
    ///
    /// # Errors
    /// `template_request` when a field is missing, `template_not_found` for an unknown engine or
    /// template; else what the source or the engine says.
    pub fn parse(&self, call: &ParseCall<'_>) -> Result<Value, TemplateError> {
        let name = call.name;
        if name == "textfsm" {
            return self.parse_textfsm(call);
        }
        let registered = self.compilers.get_key_value(name);
        if name != "ttp" && registered.is_none() {
            return Err(TemplateError::new(
                "source",
                code::NOT_FOUND,
                format!("there is no parser '{name}': use {}", self.parsers().join(", ")),
            ));
        }
        let engine = registered.map_or("ttp", |(engine, _)| *engine);
        let text = match call.template {
            Some(template) if engine == "ttp" && !call.use_ttp_template && is_ttp_path(template) => {
                self.ttp_templates()?.by_path(template)?.into()
            }
            Some(template) if !call.use_ttp_template => self.sources.load(template)?,
            _ if engine == "ttp" => self.chosen_ttp(call)?.into(),
            _ => return Err(request(engine, "template: is missing")),
        };
        let args = call.args.unwrap_or(&Value::Null);
        let key = key(engine, &args.to_string(), &text);
        let cached = self.parsers.lock().get(&key);
        let parser = match cached {
            Some(parser) => parser,
            None => {
                let fresh = match registered {
                    Some((_, compile)) => compile(&text, args, &self.limits)?,
                    None => compile_ttp(&text, Arc::clone(&self.ttp_files), &self.limits)?,
                };
                // What a template reads from elsewhere may change.
                let reads = engine == "ttp" && ["<extend", "include", "url"].iter().any(|w| text.contains(w));
                if !reads {
                    self.parsers.lock().put(key, Arc::clone(&fresh));
                }
                fresh
            }
        };
        parser.parse(call.text)
    }

    /// The folder of ttp-templates in use.
    pub fn ttp_folder(&self) -> Option<&std::path::Path> {
        self.ttp.as_ref().map(TtpTemplates::folder)
    }

    fn ttp_templates(&self) -> Result<&TtpTemplates, TemplateError> {
        self.ttp.as_ref().ok_or_else(|| {
            TemplateError::new(
                "ttp",
                code::NOT_FOUND,
                "ttp-templates was not found: set TTP_TEMPLATES_DIR or template.ttp_dir, or install \
                 the Python package ttp-templates",
            )
        })
    }

    /// The text that `ttp_template_args` choose; platform and command may come from the call.
    fn chosen_ttp(&self, call: &ParseCall<'_>) -> Result<String, TemplateError> {
        let args = call.ttp_template_args;
        let of = |field: &str| args.and_then(|a| a.get(field)).and_then(Value::as_str);
        let mut choice = TtpChoice {
            path: of("path"),
            platform: of("platform").or(call.platform),
            command: of("command"),
            yang: of("yang"),
            misc: of("misc"),
            get: of("get"),
        };
        if choice.yang.is_none() && choice.misc.is_none() {
            choice.command = choice.command.or(call.command);
        }
        if choice.path.is_none() && choice.misc.is_none() && choice.get.is_none() && choice.yang.is_none() {
            let (platform, command) = chosen("ttp", call, args)?;
            (choice.platform, choice.command) = (Some(platform), Some(command));
        }
        self.ttp_templates()?.choose(&choice)
    }

    fn fsm(&self, text: &str) -> Result<Arc<textfsm::Template>, TemplateError> {
        let key = key("textfsm", "", text);
        let cached = self.fsms.lock().get(&key);
        if let Some(template) = cached {
            return Ok(template);
        }
        let fresh = Arc::new(textfsm::Template::compile_with(text, self.limits.clone())?);
        self.fsms.lock().put(key, Arc::clone(&fresh));
        Ok(fresh)
    }

    fn ntc(&self) -> Result<&NtcTemplates, TemplateError> {
        self.ntc.as_ref().ok_or_else(|| {
            TemplateError::new(
                "textfsm",
                code::NOT_FOUND,
                "ntc-templates was not found: set NET_TEXTFSM, NTC_TEMPLATES_DIR or \
                 template.ntc_dir, or install the Python package ntc-templates",
            )
        })
    }

    fn parse_textfsm(&self, call: &ParseCall<'_>) -> Result<Value, TemplateError> {
        if let Some(template) = call.template.filter(|_| !call.use_ntc_template) {
            let text = if is_template_name(template) {
                self.ntc()?.by_name(template)?.into()
            } else {
                self.sources.load(template)?
            };
            return Ok(self.fsm(&text)?.parse(call.text)?.to_value());
        }
        let (platform, command) = chosen("textfsm", call, call.ntc_template_args)?;
        let texts = self.ntc()?.for_command(platform, command)?;
        let templates: Vec<Arc<textfsm::Template>> =
            texts.iter().map(|text| self.fsm(text)).collect::<Result<_, _>>()?;
        let tables = templates
            .iter()
            .map(|template| Ok((template.parse(call.text)?, template.keys())))
            .collect::<Result<Vec<_>, TemplateError>>()?;
        Ok(textfsm::merge(tables)?.map_or_else(|| json!([]), |table| table.to_ntc_value()))
    }
}

/// `ttp://...` alone.
fn is_ttp_path(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("ttp://") && !text.contains(['\n', '{'])
}

/// `name.textfsm` or `name.template`.
fn is_template_name(text: &str) -> bool {
    text.rsplit_once('.').is_some_and(|(_, end)| end == "textfsm" || end == "template")
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// Platform and command: from the arguments, else from the call.
fn chosen<'c>(
    engine: &'static str,
    call: &ParseCall<'c>,
    args: Option<&'c Value>,
) -> Result<(&'c str, &'c str), TemplateError> {
    let pick = |field: &str, fallback: Option<&'c str>| {
        args.and_then(|a| a.get(field)).and_then(Value::as_str).or(fallback).ok_or_else(|| {
            request(engine, format!("give a template, or {engine} template arguments with a {field}"))
        })
    };
    Ok((pick("platform", call.platform)?, pick("command", call.command)?))
}
