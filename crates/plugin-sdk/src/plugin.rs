//! What a plugin says it is.

use std::process::ExitCode;
use std::sync::Arc;

use netpulse_model::plugin::{CONTRACT, Capabilities, Capability, Kind, StartForm};
use netpulse_model::request::Strategy;
use serde_json::{Map, Value};

use crate::command::{self, Asked};
use crate::driver::Driver;
use crate::kinds::{
    Check, Configure, Credential, Output, Parser, Processor, Provider, Renderer, Scheduler, Webhook,
};
use crate::{log, serve};

/// What answers a capability's requests.
pub(crate) enum Handler {
    Driver(Arc<dyn Driver>),
    Renderer(Arc<dyn Renderer>),
    Parser(Arc<dyn Parser>),
    Scheduler(Arc<dyn Scheduler>),
    Webhook(Arc<dyn Webhook>),
    Credential(Arc<dyn Credential>),
    Provider(Arc<dyn Provider>),
    Input(Arc<dyn Processor>),
    Assistant(Arc<dyn Processor>),
    Check(Arc<dyn Check>),
    Output(Arc<dyn Output>),
}

/// A plugin: its identity, and one handler per capability. What describes a capability
/// ([`Plugin::feature`], [`Plugin::schema`], ...) describes the one added last.
pub struct Plugin {
    pub(crate) capabilities: Capabilities,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) configure: Option<Arc<dyn Configure>>,
}

impl Plugin {
    /// A plugin with this id (`<who>/<kind>/<name>/v<n>`) and version.
    #[must_use]
    pub fn new(id: &str, version: &str) -> Self {
        let capabilities = Capabilities {
            contract: CONTRACT.to_owned(),
            id: id.to_owned(),
            version: version.to_owned(),
            start: Some(StartForm::Server),
            ..Capabilities::default()
        };
        Self { capabilities, handlers: Vec::new(), configure: None }
    }

    /// One sentence for the list of plugins.
    #[must_use]
    pub fn describe(mut self, text: &str) -> Self {
        text.clone_into(&mut self.capabilities.description);
        self
    }

    /// Takes the plugin's own settings (`plugin.config`).
    #[must_use]
    pub fn configure(mut self, configure: impl Configure) -> Self {
        self.capabilities.features.push("configure".to_owned());
        self.configure = Some(Arc::new(configure));
        self
    }

    fn add(mut self, kind: Kind, name: &str, features: &[&str], handler: Handler) -> Self {
        self.capabilities.by_type.entry(name.to_owned()).or_default().push(kind.capability().to_owned());
        self.capabilities.capabilities.push(Capability {
            kind: kind.capability().to_owned(),
            name: name.to_owned(),
            features: features.iter().map(|f| (*f).to_owned()).collect(),
            json_schema: Value::Object(Map::new()),
            ..Capability::default()
        });
        self.handlers.push(handler);
        self
    }

    /// A driver that answers commands. With [`Plugin::feature`] `config` it takes changes, too.
    #[must_use]
    pub fn driver(self, name: &str, driver: impl Driver) -> Self {
        let features = ["stream", "keepalive", "test", "validate"];
        self.add(Kind::Driver, name, &features, Handler::Driver(Arc::new(driver)))
    }

    /// A renderer.
    #[must_use]
    pub fn renderer(self, name: &str, renderer: impl Renderer) -> Self {
        self.add(Kind::TemplateRenderer, name, &[], Handler::Renderer(Arc::new(renderer)))
    }

    /// A parser.
    #[must_use]
    pub fn parser(self, name: &str, parser: impl Parser) -> Self {
        self.add(Kind::TemplateParser, name, &[], Handler::Parser(Arc::new(parser)))
    }

    /// A scheduler.
    #[must_use]
    pub fn scheduler(self, name: &str, scheduler: impl Scheduler) -> Self {
        self.add(Kind::Scheduler, name, &[], Handler::Scheduler(Arc::new(scheduler)))
    }

    /// A webhook.
    #[must_use]
    pub fn webhook(self, name: &str, webhook: impl Webhook) -> Self {
        self.add(Kind::Webhook, name, &[], Handler::Webhook(Arc::new(webhook)))
    }

    /// A credential provider.
    #[must_use]
    pub fn credential(self, name: &str, credential: impl Credential) -> Self {
        self.add(Kind::Credential, name, &[], Handler::Credential(Arc::new(credential)))
    }

    /// A provider of data for checks.
    #[must_use]
    pub fn provider(self, name: &str, provider: impl Provider) -> Self {
        self.add(Kind::Provider, name, &[], Handler::Provider(Arc::new(provider)))
    }

    /// An input of checks.
    #[must_use]
    pub fn input(self, name: &str, input: impl Processor) -> Self {
        self.add(Kind::Input, name, &[], Handler::Input(Arc::new(input)))
    }

    /// An assistant.
    #[must_use]
    pub fn assistant(self, name: &str, assistant: impl Processor) -> Self {
        self.add(Kind::Assistant, name, &[], Handler::Assistant(Arc::new(assistant)))
    }

    /// A check.
    #[must_use]
    pub fn check(self, name: &str, check: impl Check) -> Self {
        self.add(Kind::Check, name, &[], Handler::Check(Arc::new(check)))
    }

    /// An output.
    #[must_use]
    pub fn output(self, name: &str, output: impl Output) -> Self {
        self.add(Kind::Output, name, &[], Handler::Output(Arc::new(output)))
    }

    fn last(mut self, change: impl FnOnce(&mut Capability)) -> Self {
        if let Some(last) = self.capabilities.capabilities.last_mut() {
            change(last);
        }
        self
    }

    /// What this capability can do: `config`, `save`, `dry_run`, `file_transfer`, ...
    #[must_use]
    pub fn feature(self, feature: &str) -> Self {
        self.last(|last| last.features.push(feature.to_owned()))
    }

    /// The port of this driver's devices; 22 when unsaid.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.last(|last| last.default_port = Some(port))
    }

    /// Jobs of this driver wait for their device's own worker, which keeps the session.
    #[must_use]
    pub fn pinned(self) -> Self {
        self.last(|last| last.default_queue_strategy = Some(Strategy::Pinned))
    }

    /// A JSON schema of an argument: `connection_args`, `driver_args`, `args`, `settings`, ...
    #[must_use]
    pub fn schema(self, argument: &str, schema: Value) -> Self {
        self.last(|last| {
            if let Value::Object(schemas) = &mut last.json_schema {
                schemas.insert(argument.to_owned(), schema);
            }
        })
    }

    /// A request body that this endpoint answers with 200 whatever is around: `doctor` sends it.
    #[must_use]
    pub fn example(self, endpoint: &str, body: Value) -> Self {
        self.last(|last| {
            last.examples.insert(endpoint.to_owned(), body);
        })
    }

    /// Does what the command line asks, to the end of the plugin's life: the whole `main`.
    #[must_use]
    pub fn serve(self) -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match command::read(&arguments) {
            Ok(Asked::Capabilities) => match serde_json::to_string(&self.capabilities) {
                Ok(text) if serve::print(&text) => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            },
            Ok(Asked::Serve(config)) => match serve::run(self, *config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    log::error(&error);
                    ExitCode::FAILURE
                }
            },
            Err(why) => {
                log::error(&why);
                ExitCode::from(2)
            }
        }
    }
}
