"""The plugin `pass`: credentials out of a `pass` password store, opened by gpg.

The store is pass's own (https://www.passwordstore.org): `sites/hq/admin.gpg` holds the password in
its first line and fields as `name: value` below. A field without a value takes the PEM block after it.
"""

import os
import re
import shutil
import subprocess

from netpulse_plugin import BadRequest, CredentialProvider, Denied, NotFound, Plugin, Unavailable, current_call, run

#: What people call the user in their stores.
USER = ("username", "user", "login")
SETTINGS = {"store": "", "gnupg_home": "", "gpg": "gpg", "allowed_paths": []}


class Pass(CredentialProvider):
    name = "pass"
    json_schema = {
        "reference": {"type": "object", "required": ["ref"], "properties": {"ref": {"type": "string", "minLength": 1}}}
    }

    def __init__(self):
        self.settings = dict(SETTINGS)
        self.store = os.path.realpath(os.path.expanduser("~/.password-store"))

    def configure(self, given):
        for key, value in given.items():
            if key not in SETTINGS:
                raise BadRequest(f"the setting `{key}` is not known: there are {', '.join(SETTINGS)}")
            if not isinstance(value, type(SETTINGS[key])):
                raise BadRequest(f"the setting `{key}` should be a {'list of paths' if key == 'allowed_paths' else 'text'}")
        self.settings = {**SETTINGS, **given}
        self.store = os.path.realpath(os.path.expanduser(self.settings["store"] or "~/.password-store"))

    def fetch(self, reference, connection_args):
        for word in ("mount", "namespace", "version"):
            if (reference.raw or {}).get(word) is not None:
                raise BadRequest(f"credential.{word}: a pass store has none; leave it out")
        return fields(self.open(self.file(reference.ref)))

    def file(self, ref):
        """The file of an entry, never outside of the store."""
        parts = ref.split("/")
        if any(part in ("", ".", "..") or part.startswith((".", "-")) or not part.isprintable() for part in parts):
            raise BadRequest(f"credential.ref: {ref!r} is no entry's name")
        allowed = self.settings["allowed_paths"]
        if allowed and not any(parts[: len(path.split("/"))] == path.split("/") for path in allowed):
            raise Denied(f"Access to {ref} is not allowed by policy (setting `allowed_paths`)")
        file = os.path.realpath(os.path.join(self.store, *parts) + ".gpg")
        if not file.startswith(self.store + os.sep):
            raise Denied(f"{ref} leads out of the store {self.store}")
        if not os.path.isfile(file):
            raise NotFound(f"there is no entry {ref} in the store {self.store}")
        return file

    def open(self, file):
        """The entry's text."""
        program = shutil.which(self.settings["gpg"])
        if program is None:
            raise Unavailable("gpg is not installed here (Debian package gnupg), or the setting `gpg` is wrong")
        command = [program, "--batch", "--quiet", "--no-tty", "--pinentry-mode", "error", "--decrypt", file]
        environment = dict(os.environ)
        if self.settings["gnupg_home"]:
            environment["GNUPGHOME"] = os.path.expanduser(self.settings["gnupg_home"])
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=current_call().remaining(20)
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"gpg did not open {os.path.basename(file)} in time") from None
        if ended.returncode != 0:
            said = " ".join(ended.stderr.decode(errors="replace").split())
            raise Unavailable(f"gpg did not open {os.path.basename(file)}: {said[:300]}")
        return ended.stdout.decode(errors="replace")

    def check(self):
        if not os.path.isdir(self.store):
            raise Unavailable(f"there is no store {self.store}: set the setting `store`")
        count = sum(name.endswith(".gpg") for _, _, names in os.walk(self.store) for name in names)
        return {"store": self.store, "entries": count}


def fields(text):
    """An entry's fields."""
    first, _, rest = text.partition("\n")
    found = {"password": first}
    pem = re.compile(r"^([\w-]+):[ \t]*\n(-----BEGIN [^\n]*-----\n.*?\n-----END [^\n]*-----)", re.S | re.M)
    for name, block in pem.findall(rest):
        found[name.lower()] = block + "\n"
    for name, value in re.findall(r"^([\w-]+):[ \t]*(\S[^\n]*)$", pem.sub("", rest), re.M):
        found.setdefault(name.lower(), value.strip())
    user = next((found[name] for name in USER if name in found), None)
    if user is not None:
        found["username"] = user
    return found


if __name__ == "__main__":
    store = Pass()
    run(
        Plugin(
            id="netpulse.example/credential/pass/v1",
            version="0.1.0",
            description="Credentials out of a pass password store",
            provides=[store],
            configure=store.configure,
        )
    )
