//! Telnet's byte layer (RFC 854, 855, 1091, 1073): takes negotiation out of the stream and answers it.
//!
//! We never open a negotiation. We let the peer echo and suppress go-ahead, tell our terminal type
//! and window when asked, take eight bits, and refuse everything else. An answer is sent only when
//! a state changes or a request is refused, and each option is refused a bounded number of times,
//! so that no peer can draw us into a loop.

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;

const BINARY: u8 = 0;
const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;
const TERMINAL_TYPE: u8 = 24;
const WINDOW_SIZE: u8 = 31;

const TTYPE_IS: u8 = 0;
const TTYPE_SEND: u8 = 1;

/// Bytes of a subnegotiation that are kept: the longest one we answer has two.
const MAX_SUBNEGOTIATION: usize = 64;

/// Refusals per option before we fall silent.
const MAX_REFUSALS: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Plain data.
    Data,
    /// After a carriage return: a NUL that follows belongs to it.
    Return,
    /// After IAC.
    Command,
    /// After IAC WILL, WONT, DO or DONT: the option comes next.
    Option(u8),
    /// Inside IAC SB.
    Sub,
    /// Inside IAC SB, after an IAC.
    SubCommand,
}

/// The state of one Telnet connection.
#[derive(Debug)]
pub struct Codec {
    state: State,
    /// Options on at the peer's end (it said WILL, we said DO).
    theirs: Options,
    /// Options on at our end (it said DO, we said WILL).
    ours: Options,
    refusals: [u8; 256],
    sub: Vec<u8>,
    term: String,
    width: u16,
    height: u16,
}

#[derive(Debug, Default)]
struct Options([u64; 4]);

impl Options {
    fn has(&self, option: u8) -> bool {
        self.0[usize::from(option >> 6)] & (1 << (option & 63)) != 0
    }

    fn set(&mut self, option: u8, on: bool) {
        let bit = 1 << (option & 63);
        let word = &mut self.0[usize::from(option >> 6)];
        if on { *word |= bit } else { *word &= !bit }
    }
}

impl Codec {
    /// A connection's first state, with the terminal that we shall say we are.
    #[must_use]
    pub fn new(term: &str, width: u16, height: u16) -> Self {
        Self {
            state: State::Data,
            theirs: Options::default(),
            ours: Options::default(),
            refusals: [0; 256],
            sub: Vec::new(),
            term: term.chars().filter(char::is_ascii_graphic).take(40).collect(),
            width,
            height,
        }
    }

    /// Whether the peer echoes what we type.
    #[must_use]
    pub fn peer_echoes(&self) -> bool {
        self.theirs.has(ECHO)
    }

    /// Takes received bytes; the device's data goes to `data`, what must be answered to `reply`.
    pub fn receive(&mut self, bytes: &[u8], data: &mut Vec<u8>, reply: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            if self.state == State::Data {
                // Data runs to the next byte that means something, and is copied in one piece.
                let run = memchr::memchr2(IAC, b'\r', rest).unwrap_or(rest.len());
                if run > 0 {
                    data.extend_from_slice(&rest[..run]);
                    rest = &rest[run..];
                    continue;
                }
            }
            rest = tail;
            self.byte(byte, data, reply);
        }
    }

    fn byte(&mut self, byte: u8, data: &mut Vec<u8>, reply: &mut Vec<u8>) {
        self.state = match self.state {
            State::Data => match byte {
                IAC => State::Command,
                b'\r' => {
                    data.push(byte);
                    if self.theirs.has(BINARY) { State::Data } else { State::Return }
                }
                _ => {
                    data.push(byte);
                    State::Data
                }
            },
            State::Return => match byte {
                0 => State::Data,
                IAC => State::Command,
                b'\r' => {
                    data.push(byte);
                    State::Return
                }
                _ => {
                    data.push(byte);
                    State::Data
                }
            },
            State::Command => match byte {
                IAC => {
                    data.push(IAC);
                    State::Data
                }
                WILL | WONT | DO | DONT => State::Option(byte),
                SB => {
                    self.sub.clear();
                    State::Sub
                }
                // No-operation, go-ahead, break, are-you-there and the like say nothing to us.
                _ => State::Data,
            },
            State::Option(verb) => {
                self.negotiate(verb, byte, reply);
                State::Data
            }
            State::Sub => {
                if byte == IAC {
                    State::SubCommand
                } else {
                    self.keep(byte);
                    State::Sub
                }
            }
            State::SubCommand => match byte {
                SE => {
                    self.subnegotiate(reply);
                    State::Data
                }
                IAC => {
                    self.keep(IAC);
                    State::Sub
                }
                // A peer that forgot its SE: what follows is a command again.
                WILL | WONT | DO | DONT => State::Option(byte),
                _ => State::Data,
            },
        };
    }

    fn keep(&mut self, byte: u8) {
        if self.sub.len() < MAX_SUBNEGOTIATION {
            self.sub.push(byte);
        }
    }

    fn negotiate(&mut self, verb: u8, option: u8, reply: &mut Vec<u8>) {
        match verb {
            WILL if self.theirs.has(option) => {}
            WILL if matches!(option, ECHO | SUPPRESS_GO_AHEAD | BINARY) => {
                self.theirs.set(option, true);
                reply.extend_from_slice(&[IAC, DO, option]);
            }
            WILL => self.refuse(DONT, option, reply),
            WONT if self.theirs.has(option) => {
                self.theirs.set(option, false);
                reply.extend_from_slice(&[IAC, DONT, option]);
            }
            DO if self.ours.has(option) => {}
            DO if matches!(option, TERMINAL_TYPE | WINDOW_SIZE | SUPPRESS_GO_AHEAD | BINARY) => {
                self.ours.set(option, true);
                reply.extend_from_slice(&[IAC, WILL, option]);
                if option == WINDOW_SIZE {
                    self.tell_window(reply);
                }
            }
            DO => self.refuse(WONT, option, reply),
            DONT if self.ours.has(option) => {
                self.ours.set(option, false);
                reply.extend_from_slice(&[IAC, WONT, option]);
            }
            // A refusal of what was never on needs no answer.
            _ => {}
        }
    }

    fn refuse(&mut self, verb: u8, option: u8, reply: &mut Vec<u8>) {
        let count = &mut self.refusals[usize::from(option)];
        if *count < MAX_REFUSALS {
            *count += 1;
            reply.extend_from_slice(&[IAC, verb, option]);
        }
    }

    fn tell_window(&self, reply: &mut Vec<u8>) {
        reply.extend_from_slice(&[IAC, SB, WINDOW_SIZE]);
        for byte in self.width.to_be_bytes().into_iter().chain(self.height.to_be_bytes()) {
            reply.push(byte);
            if byte == IAC {
                reply.push(IAC);
            }
        }
        reply.extend_from_slice(&[IAC, SE]);
    }

    fn subnegotiate(&mut self, reply: &mut Vec<u8>) {
        if self.sub == [TERMINAL_TYPE, TTYPE_SEND] && self.ours.has(TERMINAL_TYPE) {
            reply.extend_from_slice(&[IAC, SB, TERMINAL_TYPE, TTYPE_IS]);
            reply.extend_from_slice(self.term.as_bytes());
            reply.extend_from_slice(&[IAC, SE]);
        }
    }

    /// What must be written so that the peer reads `data`: IAC doubled, and a carriage return that
    /// ends no line followed by NUL unless we send eight bits.
    pub fn encode(&self, data: &[u8], wire: &mut Vec<u8>) {
        let binary = self.ours.has(BINARY);
        wire.reserve(data.len() + 2);
        for (at, &byte) in data.iter().enumerate() {
            wire.push(byte);
            if byte == IAC {
                wire.push(IAC);
            } else if byte == b'\r' && !binary && data.get(at + 1) != Some(&b'\n') {
                wire.push(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chunks: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let mut codec = Codec::new("vt100", 511, 255);
        let (mut data, mut reply) = (Vec::new(), Vec::new());
        for chunk in chunks {
            codec.receive(chunk, &mut data, &mut reply);
        }
        (data, reply)
    }

    #[test]
    fn a_routers_greeting_is_answered_and_taken_out() {
        // What a Cisco IOS device opens with: WILL ECHO, WILL SGA, DO TTYPE, DO NAWS.
        let greeting =
            [
                &[
                    IAC,
                    WILL,
                    ECHO,
                    IAC,
                    WILL,
                    SUPPRESS_GO_AHEAD,
                    IAC,
                    DO,
                    TERMINAL_TYPE,
                    IAC,
                    DO,
                    WINDOW_SIZE,
                ][..],
                b"\r\n\r\nUser Access Verification\r\n\r\nUsername: ",
            ]
            .concat();
        let (data, reply) = all(&[&greeting]);
        assert_eq!(data, b"\r\n\r\nUser Access Verification\r\n\r\nUsername: ");
        let mut expected =
            vec![IAC, DO, ECHO, IAC, DO, SUPPRESS_GO_AHEAD, IAC, WILL, TERMINAL_TYPE, IAC, WILL, WINDOW_SIZE];
        // 511 x 255: the low bytes are IAC and must be doubled.
        expected.extend([IAC, SB, WINDOW_SIZE, 1, IAC, IAC, 0, IAC, IAC, IAC, SE]);
        assert_eq!(reply, expected);
    }

    #[test]
    fn tells_the_terminal_type_only_when_asked_and_agreed() {
        let ask = [IAC, SB, TERMINAL_TYPE, TTYPE_SEND, IAC, SE];
        assert_eq!(all(&[&ask]).1, b"");
        let (_, reply) = all(&[&[IAC, DO, TERMINAL_TYPE], &ask]);
        assert_eq!(
            reply,
            [&[IAC, WILL, TERMINAL_TYPE, IAC, SB, TERMINAL_TYPE, TTYPE_IS][..], b"vt100", &[IAC, SE]]
                .concat()
        );
    }

    #[test]
    fn a_peer_that_repeats_itself_draws_no_loop() {
        let mut codec = Codec::new("vt100", 80, 24);
        let (mut data, mut reply) = (Vec::new(), Vec::new());
        for _ in 0..10_000 {
            codec.receive(&[IAC, WILL, ECHO, IAC, DO, 200, IAC, WILL, 200], &mut data, &mut reply);
        }
        assert!(data.is_empty());
        assert_eq!(reply.len(), 3 + 3 * usize::from(MAX_REFUSALS));
    }

    #[test]
    fn carriage_return_nul_is_a_carriage_return() {
        assert_eq!(all(&[b"a\r\0b\r\nc\r", b"\0d\r\r\0e\0"]).0, b"a\rb\r\nc\rd\r\re\0");
        assert_eq!(all(&[&[b'x', IAC, IAC, b'y']]).0, [b'x', IAC, b'y']);
        let mut codec = Codec::new("vt100", 80, 24);
        let mut wire = Vec::new();
        codec.encode(b"show\rq\r\n\xff", &mut wire);
        assert_eq!(wire, b"show\r\0q\r\n\xff\xff");
        codec.receive(&[IAC, DO, BINARY, IAC, WILL, BINARY], &mut Vec::new(), &mut Vec::new());
        let (mut wire, mut data) = (Vec::new(), Vec::new());
        codec.encode(b"a\r", &mut wire);
        codec.receive(b"\r\0", &mut data, &mut Vec::new());
        assert_eq!((wire.as_slice(), data.as_slice()), (&b"a\r"[..], &b"\r\0"[..]));
    }

    /// Bytes in which everything that Telnet knows is likely.
    fn telnet_bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => Just(IAC),
            4 => prop_oneof![Just(WILL), Just(WONT), Just(DO), Just(DONT), Just(SB), Just(SE)],
            3 => prop_oneof![Just(BINARY), Just(ECHO), Just(SUPPRESS_GO_AHEAD), Just(TERMINAL_TYPE), Just(WINDOW_SIZE)],
            2 => Just(b'\r'),
            4 => any::<u8>(),
        ];
        proptest::collection::vec(byte, 0..400)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_data_and_answers(bytes in telnet_bytes(), cuts in proptest::collection::vec(0usize..400, 0..8)) {
            let whole = all(&[&bytes]);
            let singles: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&all(&singles), &whole);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(&all(&pieces), &whole);
        }

        #[test]
        fn never_more_data_than_received(bytes in telnet_bytes()) {
            let (data, reply) = all(&[&bytes]);
            prop_assert!(data.len() <= bytes.len());
            // The longest answer to two or three bytes is the window's.
            prop_assert!(reply.len() <= bytes.len() * 8);
        }

        #[test]
        fn what_one_end_writes_the_other_reads(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let sender = Codec::new("vt100", 80, 24);
            let mut wire = Vec::new();
            sender.encode(&text, &mut wire);
            prop_assert_eq!(all(&[&wire]).0, text);
        }
    }
}
