#!/usr/bin/env python3
"""A scheduler, a webhook and a credential provider in one process that misbehave on command: the
file of each kind's name in the folder of the settings says how the next calls go. What they were
called with is appended to `<kind>.log` there, one JSON object per line."""

import json
import os
import time

from netpulse_plugin import BadRequest, CredentialProvider, Denied, NotFound, Plugin, Scheduler, Unavailable, Webhook, run

FOLDER = ""


def configure(settings):
    global FOLDER
    FOLDER = settings["folder"]


def mood(kind):
    """What the test wants of this kind now; the faults that all kinds share are done here."""
    try:
        with open(os.path.join(FOLDER, kind)) as file:
            word, _, more = file.read().strip().partition(" ")
    except FileNotFoundError:
        word, more = "", ""
    if word == "die":
        # Past every handler, as a crash in native code would be.
        os._exit(70)
    if word == "hang":
        time.sleep(3600)
    return word, more


def note(kind, **said):
    with open(os.path.join(FOLDER, kind + ".log"), "a") as file:
        file.write(json.dumps({**said, "pid": os.getpid()}) + "\n")


class ByMood(Scheduler):
    name = "by_mood"

    def select(self, nodes, host):
        note("scheduler", host=host, nodes=[node.hostname for node in nodes])
        word, more = mood("scheduler")
        if word == "full":
            return None
        return more if word == "choose" else nodes[0].hostname


class Notebook(Webhook):
    name = "notebook"

    def validate(self, request):
        if not str(request.get("url")).startswith("note:"):
            raise BadRequest("webhook.url: Input should begin with note:")

    def call(self, delivery):
        # Written before anything can go wrong: every attempt is seen.
        job = delivery.job
        note(
            "webhook",
            delivery=delivery.delivery,
            attempt=delivery.attempt,
            job=job.get("id"),
            status=job.get("status"),
            page=delivery.request.get("page"),
            payload=delivery.payload,
        )
        word, _ = mood("webhook")
        if word == "fail":
            raise Unavailable("the notebook at " + str(delivery.request.get("url")) + " is full")


class Safe(CredentialProvider):
    name = "safe"

    def fetch(self, reference, connection_args):
        note("credential", ref=reference.ref, args=connection_args)
        word, more = mood("credential")
        if word == "denied":
            raise Denied(f"the safe does not open for {reference.ref}")
        if word == "missing":
            raise NotFound(f"the safe holds no {reference.ref}")
        if word == "shout":
            # What a careless author does: straight to stderr, before the host knows the secret.
            os.write(2, b'{"level":"warn","msg":"giving ' + more.encode() + b'"}\n')
        if word == "refuse":
            raise Unavailable(f"the vault says: {more}")
        return {"username": "ops", "password": more}


run(
    Plugin(
        id="netpulse.example/test/mischief/v1",
        version="1.0.0",
        description="Misbehaves on command",
        provides=[ByMood(), Notebook(), Safe()],
        configure=configure,
    )
)
