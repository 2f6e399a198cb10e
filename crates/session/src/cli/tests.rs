//! The engine against devices made of bytes: what they send, in which pieces, is all that counts.

mod device;
mod fuzz;
mod pains;
mod streams;
