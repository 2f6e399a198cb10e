//! Where a plugin says that it listens, and whether that is a place to dial.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A place out of a location line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Reads a line of stdout; none when it is no location line.
///
/// # Errors
/// It names a place that is never dialled.
pub(crate) fn read(line: &str, given: &Place) -> Option<Result<Place, String>> {
    let line = line.trim();
    if let Some(path) = line.strip_prefix("http+unix://") {
        return Some(unix(path, given));
    }
    if let Some(rest) = line.strip_prefix("http://").or_else(|| line.strip_prefix("https://")) {
        return Some(tcp(rest.split('/').next().unwrap_or_default()));
    }
    // A bare address, as some kits print it.
    match given {
        Place::Unix(_) if line.starts_with('/') && !line.contains(char::is_whitespace) => {
            Some(unix(line, given))
        }
        Place::Tcp(_) if line.parse::<SocketAddr>().is_ok() || line.starts_with("[::]:") => Some(tcp(line)),
        _ => None,
    }
}

fn unix(path: &str, given: &Place) -> Result<Place, String> {
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(format!("names the socket `{}`, which is no absolute path", path.display()));
    }
    let place = Place::Unix(path.to_owned());
    if place == *given {
        return Ok(place);
    }
    let refuse = |why: String| Err(format!("names the socket {}, which {why}", path.display()));
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) => return refuse(format!("cannot be looked at: {error}")),
    };
    if !meta.file_type().is_socket() {
        return refuse("is no socket".to_owned());
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own {
        return refuse(format!("belongs to user {} and not to {own}", meta.uid()));
    }
    // Whoever can write the folder can put another socket in its place.
    let folder = path.parent().and_then(|folder| std::fs::metadata(folder).ok());
    let closed = |mode: u32| mode & 0o022 == 0;
    let private = folder
        .is_some_and(|f| (f.uid() == own || f.uid() == 0) && (closed(f.mode()) || f.mode() & 0o1000 != 0));
    if !private || !closed(meta.mode()) {
        return refuse("others may write".to_owned());
    }
    Ok(place)
}

fn tcp(address: &str) -> Result<Place, String> {
    let refuse = |why: &str| Err(format!("names the address `{address}`, which {why}: it is not dialled"));
    // `localhost` is the one name that needs no resolver to be known as this machine.
    let numeric = address
        .strip_prefix("localhost:")
        .map_or_else(|| address.to_owned(), |port| format!("127.0.0.1:{port}"));
    let Ok(socket) = numeric.parse::<SocketAddr>() else {
        return refuse("is no numeric address with a port");
    };
    match socket.ip() {
        ip if ip.is_loopback() => Ok(Place::Tcp(socket)),
        IpAddr::V4(ip) if ip.is_unspecified() => refuse("is open to the network"),
        IpAddr::V6(ip) if ip.is_unspecified() => refuse("is open to the network"),
        _ => refuse("is not of this machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Place {
        Place::Unix("/run/np/plugin.sock".into())
    }

    #[test]
    fn lines_that_are_no_location_are_noise() {
        for line in ["", "starting up", "listening on port 80", "httpx://a"] {
            assert_eq!(read(line, &given()), None, "{line}");
        }
    }

    #[test]
    fn the_given_place_is_taken_in_both_spellings() {
        for line in ["http+unix:///run/np/plugin.sock\n", "/run/np/plugin.sock"] {
            assert_eq!(read(line, &given()), Some(Ok(given())), "{line}");
        }
        let tcp = Place::Tcp("127.0.0.1:4000".parse().unwrap());
        assert_eq!(read("http://127.0.0.1:4000", &tcp), Some(Ok(tcp.clone())));
        assert_eq!(read("127.0.0.1:4000", &tcp), Some(Ok(tcp.clone())), "d1: a bare address");
        assert_eq!(read("http://localhost:4000/", &tcp), Some(Ok(tcp)));
    }

    #[test]
    fn a_foreign_address_is_refused() {
        for line in ["http://192.0.2.1:80", "http://0.0.0.0:80", "http://evil.example:80", "http://[::]:80"] {
            let answer = read(line, &given()).unwrap();
            assert!(answer.as_ref().is_err_and(|e| e.contains("not dialled")), "{line}: {answer:?}");
        }
    }

    #[test]
    fn another_socket_must_be_ours_and_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let line = format!("http+unix://{}", path.display());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(&line, &given()), Some(Ok(Place::Unix(path.clone()))));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(read(&line, &given()).unwrap().unwrap_err().contains("others may write"));
        assert!(read("http+unix:///etc/passwd", &given()).unwrap().unwrap_err().contains("no socket"));
        assert!(read("http+unix://rel.sock", &given()).unwrap().is_err());
    }
}
