#!/usr/bin/env python3
"""A credential provider: secrets out of a JSON file that only its owner may read."""

import json
import os

from netpulse_plugin import CredentialProvider, Denied, NotFound, Plugin, Unavailable, run


class VaultFile(CredentialProvider):
    name = "vault_file"
    path = ""

    def configure(self, settings):
        self.path = settings.get("path", "")

    def fetch(self, reference, connection_args):
        try:
            if os.stat(self.path).st_mode & 0o077:
                raise Denied(f"{self.path} may be read by others: chmod 600 it")
            with open(self.path) as file:
                secrets = json.load(file)
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.path}: {error}")
        if reference.ref not in secrets:
            raise NotFound(f"there is no credential {reference.ref!r} in {self.path}")
        return secrets[reference.ref]


store = VaultFile()
run(Plugin("example.org/credential/vault_file/v1", "0.1.0", [store], configure=store.configure))
