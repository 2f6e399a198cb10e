//! Names of platforms as Go writes them, which is how components name theirs.

/// The attribute of an identity that names the operating system.
pub const OS: &str = "os";
/// The attribute that names the processor.
pub const ARCHITECTURE: &str = "architecture";

/// This machine's operating system: `linux`, `darwin`, `windows`, ...
#[must_use]
pub fn os() -> &'static str {
    go_os(std::env::consts::OS)
}

/// This machine's processor: `amd64`, `arm64`, ...
#[must_use]
pub fn architecture() -> &'static str {
    go_architecture(std::env::consts::ARCH)
}

/// Go's name of an operating system.
#[must_use]
pub fn go_os(name: &str) -> &str {
    match name {
        "macos" => "darwin",
        other => other,
    }
}

/// Go's name of a processor.
#[must_use]
pub fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i686" => "386",
        "powerpc64le" => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_the_names_of_go() {
        assert_eq!((go_os("macos"), go_os("linux")), ("darwin", "linux"));
        assert_eq!(
            ["x86_64", "aarch64", "arm", "riscv64", "s390x"].map(go_architecture),
            ["amd64", "arm64", "arm", "riscv64", "s390x"]
        );
    }
}
