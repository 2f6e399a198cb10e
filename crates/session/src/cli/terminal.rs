//! Makes the text that a person would see of the bytes that a device sends.
//!
//! Escape sequences go through a real parser, carriage returns and backspaces move a cursor on
//! the current row and what is printed there overwrites, as on a screen. Bytes that are no UTF-8
//! stay as they are. Every row but the last is final, so reading a long output costs one pass.

use vte::{Params, Parser, Perform};

const ESC: u8 = 0x1b;
/// How far back on a row the cursor can go. Progress bars and redrawn prompts are far shorter;
/// without a bound one endless row could be edited at quadratic cost.
const EDITABLE: usize = 8192;
/// An escape sequence longer than this is none: a stray byte opened it.
const SEQUENCE_LIMIT: usize = 4096;

/// A terminal without a screen: the text so far, the last row still being written.
#[derive(Default)]
pub(super) struct Terminal {
    parser: Parser,
    /// Whether the parser may be inside a sequence. It does not tell, so it stays set until a
    /// callback proves that the sequence ended.
    in_sequence: bool,
    sequence_len: usize,
    rows: Rows,
}

/// What became of the echo of the line that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    /// None is expected.
    Off,
    /// Not yet complete.
    Pending,
    /// Complete; the answer starts here.
    Done(usize),
}

#[derive(Default)]
struct Rows {
    text: Vec<u8>,
    row_start: usize,
    cursor: usize,
    /// The current row was overwritten somewhere, so blanks at its end mean nothing.
    edited: bool,
    /// A pager's text was cut from this row and nothing was printed since.
    pager_cut: bool,
    /// The row that the current row is, where an absolute cursor position named it.
    screen_row: u16,
    /// An absolute position that nothing was printed at yet. Screens jump about a lot and come
    /// back; only text tells where the jump ended.
    jump: Option<(u16, u16)>,
    /// Throw finished rows away.
    discard: bool,
    echo: Option<EchoWatch>,
    body: Option<usize>,
}

/// While an echo is awaited, the row is kept flat: a long command wraps at a width that only the
/// device knows, so cursor movements would destroy its text.
struct EchoWatch {
    /// The line that was sent, without blanks.
    needle: Vec<u8>,
    /// Everything since, to be shown again properly should no echo come.
    raw: Vec<u8>,
    limit: usize,
}

impl Terminal {
    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if let Some(echo) = &mut self.rows.echo {
            echo.raw.extend_from_slice(bytes);
        }
        self.process(bytes);
        if self.rows.echo.as_ref().is_some_and(|echo| echo.raw.len() > echo.limit) {
            self.give_up_echo();
        }
    }

    fn process(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.in_sequence {
                let used = self.sequence(bytes);
                bytes = &bytes[used..];
                continue;
            }
            let plain = memchr::memchr(ESC, bytes).unwrap_or(bytes.len());
            self.rows.plain(&bytes[..plain]);
            bytes = &bytes[plain..];
            if !bytes.is_empty() {
                self.in_sequence = true;
                self.sequence_len = 0;
            }
        }
    }

    /// Feeds the parser byte by byte until it is known to be outside a sequence again.
    fn sequence(&mut self, bytes: &[u8]) -> usize {
        for (index, &byte) in bytes.iter().enumerate() {
            let mut out = Performer { rows: &mut self.rows, ended: false };
            if byte < 0x80 {
                self.parser.advance(&mut out, &[byte]);
            } else {
                // As the two bytes of U+0080..U+00FF: inside a sequence the parser skips them,
                // outside it gives the byte back through `print` or `execute`.
                let pair = [0xc0 | (byte >> 6), 0x80 | (byte & 0x3f)];
                self.parser.advance(&mut out, &pair);
            }
            let ended = out.ended;
            self.sequence_len += 1;
            if ended || self.sequence_len > SEQUENCE_LIMIT {
                if !ended {
                    self.parser = Parser::default();
                }
                self.in_sequence = false;
                return index + 1;
            }
        }
        bytes.len()
    }

    /// Forgets the text; what comes now is the answer to `line`, whose echo comes first when
    /// `echo`.
    pub fn begin(&mut self, line: &[u8], echo: bool) {
        self.rows.clear();
        if echo {
            let needle: Vec<u8> = line.iter().copied().filter(|b| !is_blank(*b)).collect();
            self.rows.echo = Some(EchoWatch { limit: 4 * line.len() + 4096, raw: Vec::new(), needle });
        }
    }

    /// Where the echo stands.
    pub fn echo(&self) -> Echo {
        match (&self.rows.echo, self.rows.body) {
            (Some(_), _) => Echo::Pending,
            (None, Some(start)) => Echo::Done(start),
            (None, None) => Echo::Off,
        }
    }

    /// No echo came: what was read is shown as any output.
    pub fn give_up_echo(&mut self) {
        if let Some(echo) = self.rows.echo.take() {
            self.rows.clear();
            self.parser = Parser::default();
            self.in_sequence = false;
            self.process(&echo.raw);
        }
    }

    /// The text so far, echo included.
    pub fn text(&self) -> &[u8] {
        &self.rows.text
    }

    /// The row being written.
    pub fn row(&self) -> &[u8] {
        &self.rows.text[self.rows.row_start..]
    }

    /// Where that row starts in the text.
    pub fn row_start(&self) -> usize {
        self.rows.row_start
    }

    /// The last `lines` rows, and where they start.
    pub fn tail(&self, lines: usize) -> (usize, &[u8]) {
        let mut start = self.rows.row_start;
        for _ in 1..lines {
            if start == 0 {
                break;
            }
            start = memchr::memrchr(b'\n', &self.rows.text[..start - 1]).map_or(0, |at| at + 1);
        }
        (start, &self.rows.text[start..])
    }

    /// Cuts the current row at `at` (a position in the text): a pager's text was there.
    pub fn cut_pager(&mut self, at: usize) {
        let at = at.max(self.rows.row_start);
        self.rows.text.truncate(at);
        self.rows.cursor = at;
        self.rows.pager_cut = true;
        self.rows.edited = true;
    }

    /// From now on finished rows are thrown away: the output is lost already, only the prompt
    /// matters.
    pub fn discard(&mut self) {
        self.rows.discard = true;
        self.rows.body = None;
        let start = self.rows.row_start;
        self.rows.text.drain(..start);
        self.rows.text.shrink_to(EDITABLE);
        self.rows.cursor -= start;
        self.rows.row_start = 0;
    }

    /// Takes the whole text and frees its memory.
    pub fn take(&mut self) -> Vec<u8> {
        let text = std::mem::take(&mut self.rows.text);
        self.rows.clear();
        text
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

impl Rows {
    fn clear(&mut self) {
        // The allocation goes too: thousands of idle sessions must not keep their last output.
        self.text = Vec::new();
        self.row_start = 0;
        self.cursor = 0;
        self.edited = false;
        self.pager_cut = false;
        self.discard = false;
        self.jump = None;
        self.echo = None;
        self.body = None;
    }

    /// Goes where the last absolute position pointed.
    fn land(&mut self) {
        let Some((row, column)) = self.jump.take() else { return };
        if std::mem::replace(&mut self.screen_row, row) != row && self.text.len() > self.row_start {
            self.newline();
        }
        if !self.flat() {
            self.column(usize::from(column) - 1);
        }
    }

    fn flat(&self) -> bool {
        self.echo.is_some()
    }

    fn plain(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            if first >= 0x20 && first != 0x7f || first == b'\t' {
                let end = bytes
                    .iter()
                    .position(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f)
                    .unwrap_or(bytes.len());
                self.print(&bytes[..end]);
                bytes = &bytes[end..];
            } else {
                self.control(first);
                bytes = &bytes[1..];
            }
        }
    }

    fn print(&mut self, run: &[u8]) {
        self.land();
        self.pager_cut = false;
        if self.cursor == self.text.len() {
            self.text.extend_from_slice(run);
            self.cursor = self.text.len();
            return;
        }
        for (index, &byte) in run.iter().enumerate() {
            if self.cursor == self.text.len() {
                self.text.extend_from_slice(&run[index..]);
                self.cursor = self.text.len();
                return;
            }
            self.edited = true;
            let old = self.char_len(self.cursor);
            if byte & 0xc0 == 0x80 {
                self.text.insert(self.cursor, byte);
            } else if old == 1 {
                self.text[self.cursor] = byte;
            } else {
                self.text.splice(self.cursor..self.cursor + old, [byte]);
            }
            self.cursor += 1;
        }
    }

    /// How many bytes the character at `at` has.
    fn char_len(&self, at: usize) -> usize {
        1 + self.text[at + 1..].iter().take_while(|b| **b & 0xc0 == 0x80).take(3).count()
    }

    fn floor(&self) -> usize {
        self.row_start.max(self.text.len().saturating_sub(EDITABLE))
    }

    fn control(&mut self, byte: u8) {
        if matches!(byte, b'\n' | b'\r' | 0x08) {
            self.land();
        }
        match byte {
            b'\n' => self.newline(),
            b'\r'
                if !self.flat() => {
                    self.cursor = self.floor();
                }
            0x08 => self.left(1),
            // NUL, BEL and the other control characters print nothing.
            _ => {}
        }
    }

    fn newline(&mut self) {
        if std::mem::take(&mut self.pager_cut) && self.text.len() == self.row_start {
            // The pager's own line end, not the output's.
            self.cursor = self.text.len();
            return;
        }
        if self.edited {
            while self.text.len() > self.row_start && matches!(self.text.last(), Some(b' ' | b'\t')) {
                self.text.pop();
            }
        }
        self.edited = false;
        if self.discard {
            self.text.clear();
        } else {
            self.text.push(b'\n');
        }
        self.row_start = self.text.len();
        self.cursor = self.row_start;
        if self.flat() && self.echo_complete() {
            self.echo = None;
            self.body = Some(self.text.len());
        }
    }

    /// Whether the text ends with the line that was sent, blanks aside. Of a long line the end is
    /// enough: some devices scroll it sideways.
    fn echo_complete(&self) -> bool {
        let Some(echo) = &self.echo else { return false };
        let mut seen = self.text.iter().rev().filter(|b| !is_blank(**b));
        let mut matched = 0;
        for expected in echo.needle.iter().rev() {
            if seen.next() != Some(expected) {
                break;
            }
            matched += 1;
        }
        matched == echo.needle.len() || matched >= 24
    }

    fn left(&mut self, count: usize) {
        if self.flat() {
            for _ in 0..count {
                if self.text.len() > self.row_start {
                    self.text.pop();
                    self.cursor = self.text.len();
                }
            }
            return;
        }
        let floor = self.floor();
        for _ in 0..count {
            while self.cursor > floor {
                self.cursor -= 1;
                if self.text[self.cursor] & 0xc0 != 0x80 {
                    break;
                }
            }
        }
    }

    fn column(&mut self, column: usize) {
        self.cursor = self.floor();
        self.right(column.min(1024));
    }

    fn right(&mut self, count: usize) {
        for _ in 0..count.min(1024) {
            if self.cursor < self.text.len() {
                self.cursor += self.char_len(self.cursor);
            } else {
                self.text.push(b' ');
                self.cursor += 1;
                self.edited = true;
            }
        }
    }

    fn csi(&mut self, params: &[u16], action: char) {
        let first = params.first().copied().unwrap_or(0);
        let count = usize::from(first.max(1));
        if matches!(action, 'H' | 'f') {
            self.jump = Some((first.max(1), params.get(1).copied().unwrap_or(1).max(1)));
            return;
        }
        if matches!(action, 'A' | 'B' | 'C' | 'D' | 'E' | 'F' | 'G' | 'J' | 'K' | 'P' | '@') {
            self.land();
        }
        if self.flat() {
            if action == 'E' {
                self.newline();
            }
            return;
        }
        match action {
            'D' => self.left(count.min(EDITABLE)),
            'C' => self.right(count),
            'G' => self.column(count - 1),
            'E' => self.newline(),
            'J' if (first == 2 || first == 3)
                && self.text.len() > self.row_start => {
                    self.newline();
                }
            'J' | 'K' => {
                self.edited = true;
                self.pager_cut = false;
                match first {
                    0 => self.text.truncate(self.cursor),
                    1 => {
                        let (start, cursor) = (self.floor(), self.cursor);
                        self.text[start..cursor].fill(b' ');
                    }
                    _ => {
                        let start = self.floor();
                        let column = self.cursor - start;
                        self.text.truncate(start);
                        self.cursor = start;
                        self.right(column);
                    }
                }
            }
            'P' => {
                let end = (self.cursor + count).min(self.text.len());
                self.text.drain(self.cursor..end);
                self.edited = true;
            }
            '@' => {
                let blanks = std::iter::repeat_n(b' ', count.min(1024));
                self.text.splice(self.cursor..self.cursor, blanks);
                self.edited = true;
            }
            // Colours, scroll regions, modes: nothing of the text changes.
            _ => {}
        }
    }
}

struct Performer<'a> {
    rows: &'a mut Rows,
    ended: bool,
}

impl Perform for Performer<'_> {
    fn print(&mut self, c: char) {
        // Only characters up to U+00FF are fed, each standing for one byte.
        self.ended = true;
        match u8::try_from(u32::from(c)) {
            Ok(byte) => self.rows.plain(&[byte]),
            Err(_) => self.rows.print(b"?"),
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            // These abort a sequence.
            0x18 | 0x1a => self.ended = true,
            0x80.. => {
                self.ended = true;
                self.rows.plain(&[byte]);
            }
            _ => self.rows.control(byte),
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _ignore: bool, action: char) {
        self.ended = true;
        if intermediates.is_empty() {
            let mut flat = [0u16; 4];
            let mut len = 0;
            for (slot, param) in flat.iter_mut().zip(params.iter()) {
                *slot = param.first().copied().unwrap_or(0);
                len += 1;
            }
            self.rows.csi(&flat[..len], action);
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _ignore: bool, byte: u8) {
        self.ended = true;
        // Next line, index: the cursor goes down.
        if intermediates.is_empty() && matches!(byte, b'E' | b'D') {
            self.rows.land();
            self.rows.newline();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8]) -> String {
        let mut terminal = Terminal::default();
        terminal.feed(bytes);
        String::from_utf8_lossy(terminal.text()).into_owned()
    }

    #[test]
    fn pain_06_escape_sequences_leave_no_trace() {
        assert_eq!(shown(b"\x1b[1;32mR1\x1b[0m# \x1b]0;title\x07x\x1b(B\x1b=y"), "R1# xy");
        assert_eq!(shown(b"\x1bPq#0;2;0\x1b\\ok \x1b[?2004h\x1b[6n!"), "ok !");
    }

    #[test]
    fn pain_06_a_prompt_drawn_at_absolute_positions() {
        let procurve = b"\x1b[24;1H\x1b[2K\x1b[24;1H\x1b[1;24r\x1b[24;1HSw# \x1b[24;1H\x1b[24;5H\x1b[?25hsh\x1b[24;7H\x1bEout\x1bE";
        assert_eq!(shown(procurve), "Sw# sh\nout\n");
    }

    #[test]
    fn pain_09_line_ends_of_all_kinds() {
        assert_eq!(shown(b"a\r\nb\r\r\nc\n\rd\ne"), "a\nb\nc\nd\ne");
    }

    #[test]
    fn pain_10_an_erased_pager_leaves_no_trace() {
        let erase = b"\x08\x08\x08\x08\x08\x08\x08\x08        \x08\x08\x08\x08\x08\x08\x08\x08";
        let mut ios = b"one\r\n--More--".to_vec();
        ios.extend_from_slice(erase);
        ios.extend_from_slice(b"two\r\n");
        assert_eq!(shown(&ios), "one\ntwo\n");
        assert_eq!(shown(b"one\r\n  ---- More ----\x1b[16D                \x1b[16Dtwo\r\n"), "one\ntwo\n");
    }

    #[test]
    fn pain_08_bytes_that_are_no_utf8_stay() {
        let mut terminal = Terminal::default();
        terminal.feed(b"a\xff\xfe\0b \xc3");
        terminal.feed(b"\xa9 \x1b[0m\xe9");
        assert_eq!(terminal.text(), b"a\xff\xfeb \xc3\xa9 \xe9");
    }

    #[test]
    fn a_wrapped_echo_is_found() {
        let line = b"show running-config interface GigabitEthernet0/0/0/1";
        for wrapped in [
            &b"R1#show running-config interface Gigabi \rtEthernet0/0/0/1\r\n"[..],
            b"show running-config inter\r\nface GigabitEthernet0/0/0/1\r\n",
            b"show running-config interface GigabitEthernet0/0/0/1\r\r\n",
            b"R1#show xx\x08\x08running-config interface\x08e GigabitEthernet0/0/0/1 \r\n",
            b"R1#$ing-config interface GigabitEthernet0/0/0/1\r\n",
        ] {
            let mut terminal = Terminal::default();
            terminal.begin(line, true);
            terminal.feed(wrapped);
            terminal.feed(b"body\rB");
            let Echo::Done(start) = terminal.echo() else {
                panic!("no echo in {}", String::from_utf8_lossy(wrapped));
            };
            assert_eq!(&terminal.text()[start..], b"Body");
        }
    }

    #[test]
    fn without_an_echo_the_text_is_shown_again_properly() {
        let mut terminal = Terminal::default();
        terminal.begin(b"show", true);
        terminal.feed(b"10%\r20%\r\nR1#");
        assert_eq!(terminal.echo(), Echo::Pending);
        terminal.give_up_echo();
        assert_eq!(terminal.text(), b"20%\nR1#");
    }

    #[test]
    fn an_endless_sequence_ends() {
        let mut bytes = b"a\x1b]".to_vec();
        bytes.extend(std::iter::repeat_n(b'x', 10_000));
        assert!(shown(&bytes).len() > 5_000);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_text(
            bytes in proptest::collection::vec(prop_oneof![
                3 => any::<u8>(),
                2 => proptest::sample::select(b"\x1b[\r\n\x08;HKJ2m]\x07 ab#".to_vec()),
            ], 0..400),
            cuts in proptest::collection::vec(0usize..400, 0..20),
            echo in any::<bool>(),
        ) {
            let mut whole = Terminal::default();
            let mut pieces = Terminal::default();
            if echo {
                whole.begin(b"ab", true);
                pieces.begin(b"ab", true);
            }
            whole.feed(&bytes);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts {
                pieces.feed(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(whole.text(), pieces.text());
            prop_assert_eq!(whole.echo(), pieces.echo());
            prop_assert!(whole.row_start() <= whole.text().len());
        }
    }
}
