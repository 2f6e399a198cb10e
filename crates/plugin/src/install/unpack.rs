//! From a blob to one program: tar, gzip, both, or the bytes as they are.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};

use super::digest::{Digest, Hashing};
use super::error::{InstallError, Result, Trouble};
use super::local::checked_name;
use super::media::Limits;
use super::stage::Partial;

/// The bytes after gzip, where they are gzip.
enum Plain<'a> {
    As(BufReader<&'a mut File>),
    Gzip(Box<flate2::read::MultiGzDecoder<BufReader<&'a mut File>>>),
}

impl Read for Plain<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::As(file) => file.read(into),
            Self::Gzip(file) => file.read(into),
        }
    }
}

fn broken(what: impl Into<String>) -> InstallError {
    InstallError::new(Trouble::BadContent, what)
}

/// What a blob gave: the program, sealed and executable, with its digest and length.
#[derive(Debug)]
pub struct Program {
    /// The file under way.
    pub file: Partial,
    /// The digest of the program itself.
    pub digest: Digest,
}

/// Finds the program in a blob. Where the blob is the program, it is not copied.
///
/// # Errors
/// The archive is broken, too large, tries to lead outside, or has not exactly one program.
pub fn unpack(
    mut blob: Partial,
    media_type: &str,
    folder: &std::path::Path,
    name: &str,
    limits: Limits,
) -> Result<Program> {
    let (zipped, archived) = shape(&mut blob)?;
    if media_type.ends_with("gzip") && !zipped {
        return Err(broken(format!("the blob is of type {media_type}, yet no gzip")));
    }
    if (media_type.ends_with("+tar") || media_type.ends_with("/x-tar") || media_type.ends_with("/tar"))
        && !archived
    {
        return Err(broken(format!("the blob is of type {media_type}, yet no tar")));
    }
    if !zipped && !archived {
        let file = blob.file()?;
        file.rewind().map_err(unreadable)?;
        let (digest, length) = super::digest::of_reader(BufReader::new(file)).map_err(unreadable)?;
        return sealed(blob, digest, length, limits);
    }
    let wanted = if archived { Some(the_program(&mut blob, zipped, limits)?) } else { None };
    let mut program = Partial::new(folder, name)?;
    let mut sink = Hashing::new(program.file()?);
    let copied = {
        let reader = plain(&mut blob, zipped)?;
        match &wanted {
            None => copy(reader, &mut sink, limits.program),
            Some(wanted) => copy_member(reader, wanted, &mut sink, limits),
        }
    };
    let (_, digest, length) = sink.finish();
    match copied {
        Ok(()) => sealed(program, digest, length, limits),
        Err(Failed::Read(error)) => Err(broken(format!("the archive is broken: {error}"))),
        Err(Failed::TooLarge) => {
            Err(broken(format!("the program unpacks to more than the {} bytes allowed", limits.program)))
        }
        Err(Failed::Write(error)) => Err(program.failed(&error)),
    }
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
    TooLarge,
}

fn sealed(mut file: Partial, digest: Digest, length: u64, limits: Limits) -> Result<Program> {
    if length == 0 {
        return Err(broken("the program is empty"));
    }
    if length > limits.program {
        return Err(broken(format!(
            "the program has {length} bytes, more than the {} allowed",
            limits.program
        )));
    }
    file.seal(true)?;
    Ok(Program { file, digest })
}

fn unreadable(error: io::Error) -> InstallError {
    InstallError::new(Trouble::Local, format!("what was written cannot be read again: {error}"))
}

/// Whether it is gzip, and whether it is a tar below that.
fn shape(blob: &mut Partial) -> Result<(bool, bool)> {
    let file = blob.file()?;
    file.rewind().map_err(unreadable)?;
    let mut magic = Vec::new();
    file.take(2).read_to_end(&mut magic).map_err(unreadable)?;
    let zipped = magic == [0x1f, 0x8b];
    let mut head = Vec::new();
    let reader = plain(blob, zipped)?;
    reader.take(512).read_to_end(&mut head).map_err(|e| broken(format!("the archive is broken: {e}")))?;
    Ok((zipped, head.get(257..262) == Some(b"ustar")))
}

fn plain(blob: &mut Partial, zipped: bool) -> Result<Plain<'_>> {
    let file = blob.file()?;
    file.rewind().map_err(unreadable)?;
    let file = BufReader::with_capacity(256 * 1024, file);
    Ok(if zipped { Plain::Gzip(Box::new(flate2::read::MultiGzDecoder::new(file))) } else { Plain::As(file) })
}

/// The position of the one program: the only file, or the only executable one.
fn the_program(blob: &mut Partial, zipped: bool, limits: Limits) -> Result<usize> {
    let bad = |error: io::Error| broken(format!("the archive is broken: {error}"));
    let mut files = Vec::new();
    // Skipping a file of a compressed archive means unpacking it: that is bounded, too.
    let reader = plain(blob, zipped)?.take(limits.program.saturating_mul(2));
    let mut archive = tar::Archive::new(reader);
    for (position, entry) in archive.entries().map_err(bad)?.enumerate() {
        if position >= limits.entries {
            return Err(broken(format!("the archive has more than {} entries", limits.entries)));
        }
        let entry = entry.map_err(bad)?;
        let name = checked_name(&entry).map_err(|why| broken(format!("the archive is refused: {why}")))?;
        if let Some(name) = name {
            let executable = entry.header().mode().map_err(bad)? & 0o111 != 0;
            files.push((position, name, executable));
        }
    }
    if let [(position, ..)] = files.as_slice() {
        return Ok(*position);
    }
    let programs: Vec<_> = files.iter().filter(|(_, _, executable)| *executable).collect();
    match programs.as_slice() {
        [(position, ..)] => Ok(*position),
        [] => Err(broken(format!("the archive has {} files and none of them is executable", files.len()))),
        several => {
            let names: Vec<&str> = several.iter().take(10).map(|(_, name, _)| name.as_str()).collect();
            Err(broken(format!(
                "the archive has {} programs where one is expected: {}",
                several.len(),
                names.join(", ")
            )))
        }
    }
}

fn copy(mut reader: impl Read, sink: &mut impl Write, most: u64) -> std::result::Result<(), Failed> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failed::Read(e)),
        };
        total += count as u64;
        if total > most {
            return Err(Failed::TooLarge);
        }
        sink.write_all(buffer.get(..count).unwrap_or_default()).map_err(Failed::Write)?;
    }
}

fn copy_member(
    reader: impl Read,
    wanted: &usize,
    sink: &mut impl Write,
    limits: Limits,
) -> std::result::Result<(), Failed> {
    let mut archive = tar::Archive::new(reader.take(limits.program.saturating_mul(2)));
    let entry = archive.entries().map_err(Failed::Read)?.nth(*wanted);
    let entry = entry.ok_or_else(|| Failed::Read(io::Error::other("it changed while it was read")))?;
    let entry = entry.map_err(Failed::Read)?;
    let size = entry.size();
    if size > limits.program {
        return Err(Failed::TooLarge);
    }
    copy(entry, sink, limits.program)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &[u8] = b"#!/bin/sh\necho hello\n";

    enum Member<'a> {
        File(&'a str, &'a [u8], u32),
        Link(&'a str, &'a str, tar::EntryType),
    }
    use Member::{File, Link};

    fn archive(members: &[Member<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for member in members {
            let mut header = tar::Header::new_ustar();
            let (name, bytes): (&str, &[u8]) = match member {
                File(name, bytes, mode) => {
                    header.set_mode(*mode);
                    (name, bytes)
                }
                Link(name, target, kind) => {
                    header.set_entry_type(*kind);
                    if !target.is_empty() {
                        header.set_link_name(target).unwrap();
                    }
                    (name, b"")
                }
            };
            // Past the builder's own checks: hostile archives are not made by it.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(bytes: &[u8], media_type: &str, limits: Limits) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let mut blob = Partial::new(folder.path(), "blob").unwrap();
        blob.file().unwrap().write_all(bytes).unwrap();
        let result = unpack(blob, media_type, folder.path(), "acme", limits).map(|program| {
            use std::os::unix::fs::PermissionsExt;
            let bytes = std::fs::read(program.file.path()).unwrap();
            assert_eq!(program.digest, Digest::of(&bytes));
            let mode = std::fs::metadata(program.file.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
            bytes
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        result
    }

    #[test]
    fn every_packing_gives_the_program() {
        let tar = archive(&[File("./acme", SCRIPT, 0o644)]);
        let with_notes = archive(&[
            File("README", b"read me", 0o644),
            File("bin/acme", SCRIPT, 0o755),
            File("LICENSE", b"x", 0o644),
        ]);
        for (bytes, media_type) in [
            (SCRIPT.to_vec(), "application/octet-stream"),
            (gzip(SCRIPT), "application/gzip"),
            (gzip(SCRIPT), "application/octet-stream"),
            (tar.clone(), "application/x-tar"),
            (gzip(&tar), "application/vnd.oci.image.layer.v1.tar+gzip"),
            (with_notes.clone(), ""),
            (gzip(&with_notes), "application/x-tgz"),
        ] {
            assert_eq!(unpacked(&bytes, media_type, Limits::default()).unwrap(), SCRIPT, "{media_type}");
        }
    }

    #[test]
    fn archives_that_lead_outside_are_refused() {
        let file = || File("acme", SCRIPT, 0o755);
        for (members, said) in [
            (
                vec![file(), File("../../etc/cron.d/x", SCRIPT, 0o755)],
                "`../../etc/cron.d/x` leads out of the archive",
            ),
            (vec![File("/etc/passwd", SCRIPT, 0o755)], "`/etc/passwd` leads out"),
            (vec![file(), Link("bin", "/usr/bin", tar::EntryType::Symlink)], "`bin` is a link or device"),
            (vec![Link("acme", "/etc/shadow", tar::EntryType::Link)], "`acme` is a link or device"),
            (vec![Link("acme", "", tar::EntryType::Char)], "is a link or device"),
            (vec![Link("acme", "", tar::EntryType::Fifo)], "is a link or device"),
        ] {
            for bytes in [archive(&members), gzip(&archive(&members))] {
                let error = unpacked(&bytes, "", Limits::default()).unwrap_err();
                assert!(error.trouble == Trouble::BadContent && error.message.contains(said), "{error}");
            }
        }
    }

    #[test]
    fn not_exactly_one_program_is_refused() {
        for (members, said) in [
            (
                vec![File("a", SCRIPT, 0o755), File("b", SCRIPT, 0o755)],
                "2 programs where one is expected: a, b",
            ),
            (vec![File("a", b"1", 0o644), File("b", b"2", 0o644)], "2 files and none of them is executable"),
            (vec![File("a", b"", 0o755)], "the program is empty"),
        ] {
            let error = unpacked(&archive(&members), "", Limits::default()).unwrap_err();
            assert!(error.message.contains(said), "{error}");
        }
        assert!(unpacked(b"", "", Limits::default()).unwrap_err().message.contains("is empty"));
        let text = unpacked(SCRIPT, "application/gzip", Limits::default()).unwrap_err();
        assert!(text.message.contains("yet no gzip"), "{text}");
    }

    #[test]
    fn promise_10_what_unpacks_without_end_is_cut() {
        let small = Limits { program: 64 * 1024, entries: 10, ..Limits::default() };
        let bomb = gzip(&vec![0; 10 * 1024 * 1024]);
        assert!(bomb.len() < 64 * 1024);
        assert!(unpacked(&bomb, "", small).unwrap_err().message.contains("more than the 65536 bytes"));
        let large = archive(&[File("a", &vec![1; 100 * 1024], 0o755)]);
        for bytes in [large.clone(), gzip(&large)] {
            assert!(unpacked(&bytes, "", small).unwrap_err().message.contains("more than the 65536 bytes"));
        }
        let many: Vec<_> = (0..11).map(|_| File("a", b"x", 0o644)).collect();
        assert!(unpacked(&archive(&many), "", small).unwrap_err().message.contains("more than 10 entries"));
        let cut = &gzip(&archive(&[File("a", SCRIPT, 0o755)]))[..60];
        assert!(unpacked(cut, "", small).unwrap_err().message.contains("broken"));
    }
}
