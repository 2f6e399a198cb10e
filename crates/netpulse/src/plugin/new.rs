//! `netpulse plugin new`: the beginning of a plugin, which builds and passes `doctor` as it is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use netpulse_model::plugin::Kind;

use super::template;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::Ui;

/// Write the beginning of a plugin, which builds and passes `doctor` as it is
#[derive(Debug, Args)]
pub struct NewArgs {
    /// driver, template-renderer, template-parser, scheduler, webhook, credential, provider, input, check, assistant or output
    kind: Kind,
    /// The name that requests will use: a-z, 0-9 and _
    name: String,
    /// The language
    #[arg(long, value_enum, default_value_t)]
    lang: Language,
    /// Folder to make [default: the name]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Where the kit lies: crates/plugin-sdk or plugins/python of NetPulse's sources
    #[arg(long, value_name = "FOLDER")]
    kit: Option<PathBuf>,
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Language {
    #[default]
    Rust,
    Python,
}

pub fn run(args: &NewArgs, ui: &Ui) -> Outcome {
    if args.kind == Kind::Platform {
        let hint = "a platform is a YAML file: docs/platforms.md says how to write one";
        return Err(Failure::usage("a platform is no program").hint(hint));
    }
    let mut letters = args.name.bytes();
    let sound = letters.next().is_some_and(|b| b.is_ascii_lowercase())
        && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !sound {
        return Err(Failure::usage(format!(
            "`{}` is no name: a-z, 0-9 and _, beginning with a letter",
            args.name
        )));
    }
    let folder = args.folder.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    if folder.exists() {
        return Err(Failure::usage(format!(
            "{} is there already; choose another --folder",
            folder.display()
        )));
    }
    let kit = kit(args)?;
    let next = match args.lang {
        Language::Rust => rust(args, &folder, kit.as_deref())?,
        Language::Python => python(args, &folder, kit.as_deref())?,
    };
    ui.line(&format!("{} is written.", folder.display()));
    for line in next {
        ui.note(&line);
    }
    Ok(Exit::Ok)
}

/// The kit's folder: as told, or in the sources that we stand in.
fn kit(args: &NewArgs) -> Result<Option<PathBuf>, Failure> {
    let (usual, marks) = match args.lang {
        Language::Rust => ("crates/plugin-sdk", "Cargo.toml"),
        Language::Python => ("plugins/python", "netpulse_plugin/__init__.py"),
    };
    let wrong = |folder: &Path| {
        Failure::usage(format!("{} holds no kit: there is no {marks} in it", folder.display()))
    };
    match &args.kit {
        Some(folder) if folder.join(marks).is_file() => {
            folder.canonicalize().map(Some).map_err(|e| Failure::local(e.to_string()))
        }
        Some(folder) => Err(wrong(folder)),
        None => Ok(Path::new(usual)
            .join(marks)
            .is_file()
            .then(|| PathBuf::from(usual).canonicalize().ok())
            .flatten()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::local(format!("{}: {e}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

fn rust(args: &NewArgs, folder: &Path, kit: Option<&Path>) -> Result<Vec<String>, Failure> {
    let name = &args.name;
    let path =
        kit.map_or_else(|| "../netpulse/crates/plugin-sdk".to_owned(), |kit| kit.display().to_string());
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         # The kit in NetPulse's sources.\nnetpulse-plugin-sdk = {{ path = {path:?} }}\n\n\
         # A project of its own, wherever it lies.\n[workspace]\n"
    );
    write(&folder.join("Cargo.toml"), &manifest)?;
    write(&folder.join("src/main.rs"), &template::rust(args.kind, name))?;
    let mut next = Vec::new();
    if kit.is_none() {
        next.push("Set the path of netpulse-plugin-sdk in Cargo.toml first (or use --kit).".to_owned());
    }
    next.push(format!("cd {} && cargo build --release", folder.display()));
    next.push(format!("netpulse plugin doctor target/release/{name}"));
    next.push(format!("netpulse plugin install target/release/{name}"));
    Ok(next)
}

fn python(args: &NewArgs, folder: &Path, kit: Option<&Path>) -> Result<Vec<String>, Failure> {
    let name = &args.name;
    let file = folder.join(name);
    write(&file, &template::python(args.kind, name))?;
    let failed = |e: std::io::Error| Failure::local(format!("{}: {e}", folder.display()));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let mut next = Vec::new();
    match kit {
        Some(kit) => {
            let to = folder.join("netpulse_plugin");
            std::fs::create_dir_all(&to).map_err(failed)?;
            for entry in std::fs::read_dir(kit.join("netpulse_plugin")).map_err(failed)? {
                let from = entry.map_err(failed)?.path();
                if let (true, Some(file)) = (from.extension().is_some_and(|e| e == "py"), from.file_name()) {
                    std::fs::copy(&from, to.join(file)).map_err(failed)?;
                }
            }
        }
        None => next.push(format!(
            "Copy netpulse_plugin beside {name} first (or use --kit), or put it on PYTHONPATH."
        )),
    }
    next.push(format!("netpulse plugin doctor {}", file.display()));
    // Installed, it is one file: the kit that lies beside it here goes into it.
    let one = folder.join("dist").join(name);
    let build = kit.and_then(Path::parent).map(|plugins| plugins.join("build-python"));
    let build = build.filter(|build| build.is_file());
    let build = build.map_or_else(|| "plugins/build-python".to_owned(), |build| build.display().to_string());
    next.push(format!("{build} {} {}", file.display(), one.display()));
    next.push(format!("netpulse plugin install {}", one.display()));
    Ok(next)
}
