//! Everything a person sees: the only place that prints.
//!
//! Results go to standard output, everything about them (progress, warnings, errors) to standard
//! error, so that a pipe gets results and nothing else.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// How results are printed: for people, or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    // Without doc comments, which would make the help of every command six lines longer.
    #[default]
    Table,
    Json,
    Yaml,
}

/// What a piece of text means, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Went well.
    Good,
    /// Went wrong.
    Bad,
    /// Not sure, or under way.
    Busy,
    /// Of minor interest.
    Dim,
    /// A heading.
    Strong,
}

/// The tone of a job's or worker's status.
pub fn tone_of(status: &str) -> Tone {
    match status {
        "finished" | "applied" | "idle" | "ok" => Tone::Good,
        "failed" | "partial" | "stopped" | "unknown" | "Not Submitted" => Tone::Bad,
        "started" | "busy" | "scheduled" | "TIMEOUT" | "canceled" | "not_applied" => Tone::Busy,
        "queued" | "deferred" | "suspended" => Tone::Dim,
        _ => Tone::Plain,
    }
}

/// One cell of a table.
#[derive(Debug, Clone)]
pub struct Text(pub String, pub Tone);

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(text.into(), Tone::Plain)
    }
}

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    /// How results are printed.
    pub format: Format,
    out_is_terminal: bool,
    err_is_terminal: bool,
    out_color: bool,
    err_color: bool,
}

/// A line on standard error. Where that cannot be written there is nobody to tell.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

impl Ui {
    /// By the terminal, `NO_COLOR` and the wanted format.
    pub fn new(format: Format) -> Self {
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            format,
            out_is_terminal: out,
            err_is_terminal: err,
            out_color: out && wanted,
            err_color: err && wanted,
        }
    }

    /// The same with another format, where one is given.
    pub fn with_format(&self, format: Option<Format>) -> Self {
        Self { format: format.unwrap_or(self.format), ..*self }
    }

    /// Whether a person can be asked.
    pub fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && self.err_is_terminal
    }

    /// Whether results are for people.
    pub fn for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// A line of results.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
        if let Err(error) = written.and_then(|()| out.flush()) {
            // Who reads us has seen enough (`| head`): that is no fault.
            let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Ok } else { Exit::Local };
            std::process::exit(exit.number().into());
        }
    }

    /// A line of a server, which goes on when nobody can read it (its output's disk is full).
    pub fn announce(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
            tracing::warn!(%error, "standard output cannot be written");
        }
    }

    /// A line of results in a tone.
    pub fn toned(&self, text: &str, tone: Tone) {
        self.line(&paint(text, tone, self.out_color));
    }

    /// A line about what is going on.
    pub fn note(&self, text: &str) {
        tell(text);
    }

    /// A line about what is going on, in a tone.
    pub fn note_toned(&self, text: &str, tone: Tone) {
        tell(&paint(text, tone, self.err_color));
    }

    /// Something that a person should know.
    pub fn warn(&self, text: &str) {
        tell(&format!("{} {text}", paint("warning:", Tone::Busy, self.err_color)));
    }

    /// Why the command ends without having done what was asked.
    pub fn failure(&self, failure: &Failure) {
        let error = paint("error:", Tone::Bad, self.err_color);
        tell(&format!("{error} {} ({})", failure.what, failure.code));
        for detail in &failure.details {
            tell(&format!("  {detail}"));
        }
        if let Some(hint) = &failure.hint {
            tell(&format!("{} {hint}", paint("hint:", Tone::Strong, self.err_color)));
        }
    }

    /// A document for programs, in the wanted format; JSON where a table was wanted.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let broken =
            |error: String| Failure::new(Exit::Refused, "internal", format!("cannot be printed: {error}"));
        let text = match self.format {
            Format::Yaml => yaml_serde::to_string(value).map_err(|e| broken(e.to_string()))?,
            Format::Json | Format::Table => {
                serde_json::to_string_pretty(value).map_err(|e| broken(e.to_string()))?
            }
        };
        self.line(text.trim_end());
        Ok(())
    }

    /// One of a stream of documents: JSON on one line, or YAML between `---`.
    pub fn record(&self, value: &impl Serialize) -> Result<(), Failure> {
        match self.format {
            Format::Yaml => {
                self.line("---");
                self.document(value)
            }
            Format::Json | Format::Table => {
                let text = serde_json::to_string(value).map_err(|e| {
                    Failure::new(Exit::Refused, "internal", format!("cannot be printed: {e}"))
                })?;
                self.line(&text);
                Ok(())
            }
        }
    }

    /// Rows below a header; on a terminal they fit its width, in a pipe every row is one line.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<Text>>) {
        self.line(&self.table_text(header, rows));
    }

    /// The same on standard error, for what is asked and not what came of it.
    pub fn note_table(&self, header: &[&str], rows: Vec<Vec<Text>>) {
        let width = if self.err_is_terminal { width_of(&Term::stderr()) } else { None };
        tell(&render_table(header, rows, width, self.err_color));
    }

    fn table_text(&self, header: &[&str], rows: Vec<Vec<Text>>) -> String {
        let width = if self.out_is_terminal { width_of(&Term::stdout()) } else { None };
        render_table(header, rows, width, self.out_color)
    }

    /// A bar that counts to `total`; hidden when nobody looks.
    pub fn progress(&self, total: u64, what: &str) -> ProgressBar {
        let hidden = !self.err_is_terminal;
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = "{prefix} {bar:30} {pos}/{len} {msg} {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what.to_owned());
        bar
    }

    /// A bar that counts bytes; hidden when nobody looks.
    pub fn transfer(&self, total: u64, what: &str) -> ProgressBar {
        let bar = self.progress(total, what);
        let style = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar
    }

    /// Asks for yes or no; anything but yes is no.
    pub fn confirm(&self, question: &str) -> Result<bool, Failure> {
        let term = Term::stderr();
        let answer = term.write_str(&format!("{question} [y/N] ")).and_then(|()| term.read_line());
        let answer = answer.map_err(|e| Failure::local(format!("the terminal cannot be read: {e}")))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for a secret without showing it.
    pub fn secret(&self, question: &str) -> Result<String, Failure> {
        let term = Term::stderr();
        term.write_str(question)
            .and_then(|()| term.read_secure_line())
            .map_err(|e| Failure::local(format!("the terminal cannot be read: {e}")))
    }
}

fn paint(text: &str, tone: Tone, color: bool) -> String {
    let code = match tone {
        _ if !color => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Bad => "31",
        Tone::Busy => "33",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The columns of a terminal; none when it does not say, or is too narrow to fit anything into.
fn width_of(term: &Term) -> Option<u16> {
    term.size_checked().map(|(_, columns)| columns).filter(|columns| *columns >= 40)
}

/// Columns that are copied and pasted, so that they are never broken into two lines.
const WHOLE: &[&str] =
    &["ID", "JOB", "STATUS", "DEVICE", "PLATFORM", "SSH", "KEY", "PLUGIN", "VERSION", "LOCATION"];

fn render_table(header: &[&str], rows: Vec<Vec<Text>>, width: Option<u16>, color: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|title| styled(Text((*title).to_owned(), Tone::Strong), color)));
    for row in rows {
        table.add_row(row.into_iter().map(|text| styled(text, color)));
    }
    for (column, title) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if WHOLE.contains(title) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn styled(text: Text, color: bool) -> Cell {
    let cell = Cell::new(text.0);
    if !color {
        return cell;
    }
    match text.1 {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Busy => cell.fg(Color::Yellow),
        Tone::Dim => cell.add_attribute(Attribute::Dim),
        Tone::Strong => cell.add_attribute(Attribute::Bold),
    }
}

/// Text of a JSON value as a person reads it: texts bare, the rest as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `text` on one line, at most `width` characters.
pub fn short(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= width {
        return line;
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Seconds as a person says them.
pub fn seconds(value: f64) -> String {
    match value {
        v if v < 0.0 => String::new(),
        v if v < 0.001 => "<1 ms".to_owned(),
        v if v < 1.0 => format!("{:.0} ms", v * 1e3),
        v if v < 120.0 => format!("{v:.1} s"),
        v => format!("{:.0} min", v / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_in_a_pipe_has_one_line_per_row_and_no_colour() {
        let rows = vec![
            vec![Text::from("sw1"), Text("finished".into(), Tone::Good)],
            vec![Text::from("a-much-longer-name".repeat(20)), Text("failed".into(), Tone::Bad)],
        ];
        let text = render_table(&["HOST", "STATUS"], rows, None, false);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains('\x1b') && text.starts_with("HOST"), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn ids_stay_whole_on_a_narrow_terminal() {
        let id = "6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55";
        let row = vec![Text::from(id), Text::from("show interfaces description and much more of it")];
        let text = render_table(&["ID", "COMMAND"], vec![row], Some(60), false);
        assert!(text.contains(id) && text.lines().count() > 2, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }

    #[test]
    fn colours_are_there_when_wanted() {
        let text = render_table(&["S"], vec![vec![Text("failed".into(), Tone::Bad)]], Some(80), true);
        assert!(text.contains("\x1b["), "{text:?}");
        assert_eq!(paint("x", Tone::Bad, true), "\x1b[31mx\x1b[0m");
        assert_eq!(paint("x", Tone::Bad, false), "x");
    }

    #[test]
    fn texts_are_cut_by_characters() {
        assert_eq!(short("show  ip\nroute", 40), "show ip route");
        assert_eq!(short("ääääää", 4), "äää…");
        assert_eq!(
            (seconds(0.0123), seconds(75.2), seconds(600.0)),
            ("12 ms".into(), "75.2 s".into(), "10 min".into())
        );
    }
}
