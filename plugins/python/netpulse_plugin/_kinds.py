"""The kinds of plugins that answer one question at a time: one class each, one method to write."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Union

from ._calls import current_call
from ._errors import BadRequest, NotFound, PluginError
from ._log import MASKER
from ._server import Answer

Json = Any
Object = Dict[str, Any]


def take(body: Object, key: str, kind: type, default: Any = None) -> Any:
    """``body[key]`` when it is of that type; ``default`` when absent or null.

    Raises :class:`BadRequest` for another type, and for an absent one without a default.
    """
    value = body.get(key)
    if value is None:
        if default is None:
            raise BadRequest(f"`{key}` is missing")
        return default
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        names = {str: "a text", dict: "an object", list: "a list", int: "a number", bool: "true or false"}
        raise BadRequest(f"`{key}` should be {names.get(kind, kind.__name__)}")
    return value


def texts(body: Object, key: str) -> List[str]:
    """A list of texts."""
    items: List[Any] = take(body, key, list)
    if not all(isinstance(item, str) for item in items):
        raise BadRequest(f"`{key}` should be a list of texts")
    return items


class Capability:
    """One thing that a plugin is. Subclass one of the kinds below, not this."""

    #: The kind, as `capabilities` says it.
    kind = ""
    #: The name that requests carry: ``^[a-z][a-z0-9_]*$``.
    name = ""
    #: Optional things that it can do.
    features: Sequence[str] = ()
    #: JSON schemas by argument name: the host checks before it calls.
    json_schema: Object = {}
    #: Endpoint to a request that it answers with 200 without anything else being there: `netpulse
    #: plugin doctor` sends them.
    examples: Object = {}

    def describe(self) -> Object:
        """This capability's entry in `capabilities`."""
        entry: Object = {"type": self.kind, "name": self.name}
        features = list(dict.fromkeys([*self.features, *self._own_features()]))
        if features:
            entry["features"] = features
        if self.json_schema:
            entry["jsonSchema"] = self.json_schema
        if self.examples:
            entry["examples"] = self.examples
        return entry

    def _own_features(self) -> List[str]:
        return []

    def _overrides(self, method: str, base: type) -> bool:
        return getattr(type(self), method) is not getattr(base, method)

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        """Its endpoints."""
        raise NotImplementedError

    def close(self) -> None:
        """The process ends."""


class Renderer(Capability):
    """Makes text of data: a request's ``rendering``."""

    kind = "templateRenderer"

    def render(self, template: Optional[str], context: Json, args: Object) -> str:
        """The text. Raises :class:`BadRequest` with the place where the template is wrong."""
        raise NotImplementedError

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def render(body: Object) -> Object:
            args = _template_args(body)
            text = self.render(_optional_text(body, "template"), body.get("context"), args)
            if not isinstance(text, str):
                raise PluginError(f"renderer {self.name} gave {type(text).__name__} instead of a text")
            return {"text": text}

        return {"/template/render": render}


@dataclass
class Origin:
    """Where a text to parse came from."""

    platform: str = ""
    command: str = ""


class Parser(Capability):
    """Makes data of text: a request's ``parsing``."""

    kind = "templateParser"

    def parse(self, template: Optional[str], text: str, args: Object, origin: Optional[Origin]) -> Json:
        """Any JSON. Raises :class:`BadRequest` with the place where template or text is wrong."""
        raise NotImplementedError

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def parse(body: Object) -> Object:
            given = take(body, "origin", dict, {})
            origin = Origin(str(given.get("platform") or ""), str(given.get("command") or ""))
            text = take(body, "context", str)
            args = _template_args(body)
            value = self.parse(_optional_text(body, "template"), text, args, origin if given else None)
            return {"value": value}

        return {"/template/parse": parse}


def _optional_text(body: Object, key: str) -> Optional[str]:
    return None if body.get(key) is None else str(take(body, key, str))


def _template_args(body: Object) -> Object:
    """``args``, and what else the request gave."""
    return {**take(body, "extra", dict, {}), **take(body, "args", dict, {})}


@dataclass
class Node:
    """A node as schedulers see it."""

    hostname: str
    #: Devices that it owns, and may own.
    count: int
    capacity: int
    queue: str = ""

    @property
    def free(self) -> int:
        return max(0, self.capacity - self.count)


class Scheduler(Capability):
    """Chooses nodes for devices."""

    kind = "scheduler"

    def select(self, nodes: List[Node], host: str) -> Optional[str]:
        """The host name of the node for one device; none when there is no room."""
        raise NotImplementedError

    def select_many(self, nodes: List[Node], hosts: List[str]) -> List[Optional[str]]:
        """Nodes for many devices, in their order: one by one, unless overridden."""
        chosen: List[Optional[str]] = []
        by_name = {node.hostname: node for node in nodes}
        for host in hosts:
            name = self.select(nodes, host)
            if name in by_name:
                by_name[name].count += 1
            chosen.append(name)
        return chosen

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def nodes_of(body: Object) -> List[Node]:
            nodes = []
            for item in take(body, "nodes", list):
                try:
                    name, count, capacity = str(item["hostname"]), int(item["count"]), int(item["capacity"])
                except (KeyError, TypeError, ValueError) as error:
                    raise BadRequest(f"`nodes`: {error} is missing or wrong") from None
                nodes.append(Node(name, count, capacity, str(item.get("queue") or "")))
            return nodes

        def one(body: Object) -> Object:
            node = self.select(nodes_of(body), take(body, "host", str))
            if node is None:
                raise PluginError("Insufficient capacity in node selection", 503)
            return {"node": node}

        def many(body: Object) -> Object:
            hosts = texts(body, "hosts")
            chosen = self.select_many(nodes_of(body), hosts)
            if len(chosen) != len(hosts):
                raise PluginError(f"{len(chosen)} nodes chosen for {len(hosts)} hosts")
            if hosts and all(name is None for name in chosen):
                raise PluginError("Insufficient capacity in node selection", 503)
            return {"nodes": chosen}

        return {"/scheduler/node_select": one, "/scheduler/batch_node_select": many}


@dataclass
class Delivery:
    """One attempt to tell somebody that a job has ended."""

    #: The webhook as the request gave it (``url``, ``method``, ``headers``, ...).
    request: Object
    job: Object
    result: Object
    #: The message itself.
    payload: Json
    #: The same in every attempt.
    delivery: str
    #: From 1.
    attempt: int


class Webhook(Capability):
    """Tells somebody that a job has ended."""

    kind = "webhook"

    def call(self, delivery: Delivery) -> None:
        """One attempt. Raises anything when it did not arrive: the webhook's rules decide about
        another."""
        raise NotImplementedError

    def validate(self, request: Object) -> None:
        """Raises :class:`BadRequest` for a webhook that can never work."""

    def _own_features(self) -> List[str]:
        return ["validate"] if self._overrides("validate", Webhook) else []

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def call(body: Object) -> Object:
            delivery = Delivery(
                request=take(body, "request", dict, {}),
                job=take(body, "job", dict, {}),
                result=take(body, "result", dict, {}),
                payload=body.get("payload"),
                delivery=str(body.get("delivery") or ""),
                attempt=take(body, "attempt", int, 1),
            )
            self.call(delivery)
            return {}

        def validate(body: Object) -> Object:
            self.validate(take(body, "request", dict, {}))
            return {}

        return {"/webhook/call": call, "/webhook/validate": validate}


@dataclass
class Reference:
    """What a request's ``credential`` asks for."""

    ref: str
    mount: Optional[str] = None
    version: Optional[int] = None
    namespace: Optional[str] = None
    #: Everything that the request gave.
    raw: Optional[Object] = None


class CredentialProvider(Capability):
    """Gives secrets for references.

    ``fetch`` gives the secret's own fields; the request's ``field_mapping`` (connection argument to
    field) is applied here. Without one, :attr:`default_mapping` says what is taken, and a field that
    is not there is left out if it is in :attr:`optional`.
    """

    kind = "credential"
    default_mapping: Dict[str, str] = {"username": "username", "password": "password", "pkey": "pkey"}
    optional: Sequence[str] = ("pkey",)

    def fetch(self, reference: Reference, connection_args: Object) -> Dict[str, str]:
        """The secret's fields. Raises :class:`NotFound`, :class:`Denied`, :class:`Unavailable`; the
        texts name the path, never a secret."""
        raise NotImplementedError

    def check(self) -> Object:
        """Whether it could give secrets now; what it saw. Raises a :class:`PluginError` if not."""
        return {}

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def get(body: Object) -> Object:
            raw: Object = take(body, "reference", dict)
            version = raw.get("version")
            if version is not None and not isinstance(version, int):
                raise BadRequest("`reference.version` should be a number")
            reference = Reference(take(raw, "ref", str), raw.get("mount"), version, raw.get("namespace"), raw)
            fields = self.fetch(reference, take(body, "connection_args", dict, {}))
            held = [str(value) for value in fields.values() if len(str(value)) >= 4]
            with MASKER.holding(held):
                return {"values": self._mapped(reference, fields, take(raw, "field_mapping", dict, {}))}

        def validate(_body: Object) -> Object:
            try:
                return {"success": True, "detail": self.check()}
            except PluginError as error:
                return {"success": False, "detail": {"error": str(error)}}

        return {"/credential/get": get, "/credential/validate": validate}

    def _mapped(self, reference: Reference, fields: Dict[str, str], mapping: Object) -> Dict[str, str]:
        wanted = mapping or self.default_mapping
        missing = [name for name in wanted.values() if fields.get(name) is None]
        if not mapping:
            missing = [name for name in missing if name not in self.optional]
        if missing:
            raise NotFound(f"{reference.ref}: Missing required secret fields: {', '.join(missing)}")
        return {argument: str(fields[name]) for argument, name in wanted.items() if fields.get(name) is not None}


@dataclass
class PipelineResult:
    """What a step of a pipeline gives."""

    relates_to: str = ""
    result_name: str = ""
    result_description: str = ""
    #: An object or a list.
    details: Json = None
    formatted: str = ""

    @classmethod
    def of(cls, value: Json) -> "PipelineResult":
        """Reads one. Raises :class:`BadRequest`."""
        if not isinstance(value, dict):
            raise BadRequest("a pipeline result should be an object")
        known = {key: value[key] for key in cls.__dataclass_fields__ if value.get(key) is not None}
        return cls(**known)

    def json(self) -> Object:
        return asdict(self)


def _results(body: Object) -> List[PipelineResult]:
    return [PipelineResult.of(item) for item in take(body, "results", list, [])]


def _settings(body: Object) -> Json:
    settings = body.get("settings")
    return {} if settings is None else settings


class Provider(Capability):
    """Gathers data that checks look at."""

    kind = "provider"

    def gather(self, settings: Json) -> Union[PipelineResult, Iterator[Json]]:
        """Gathers. A generator yields items and returns the result whose ``details`` they fill.
        Missing data is an error, never an empty result."""
        raise NotImplementedError

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def lines(items: Iterator[Json]) -> Iterator[Object]:
            result = yield from _items(items)
            yield {"done": {**result.json(), "details": None}}

        def gather(body: Object) -> Answer:
            given = self.gather(_settings(body))
            if isinstance(given, PipelineResult):
                return given.json()
            if current_call().ndjson:
                return lines(given)
            found: List[Json] = []
            result = _drain(_items(given), found)
            return {**result.json(), "details": found}

        return {"/provider/gather": gather}


def _items(items: Iterator[Json]) -> "Any":
    """The items as lines; returns the result."""
    call = current_call()
    while True:
        call.check()
        try:
            item = next(items)
        except StopIteration as end:
            return end.value if isinstance(end.value, PipelineResult) else PipelineResult()
        yield {"item": item}


def _drain(lines: "Any", found: List[Json]) -> PipelineResult:
    while True:
        try:
            found.append(next(lines)["item"])
        except StopIteration as end:
            result: PipelineResult = end.value
            return result


class _Processor(Capability):
    def process(self, settings: Json, results: List[PipelineResult]) -> List[PipelineResult]:
        """The results that the next step gets."""
        raise NotImplementedError

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def process(body: Object) -> Object:
            given = self.process(_settings(body), _results(body))
            return {"results": [result.json() for result in given]}

        return {f"/{self.kind}/process": process}


class Input(_Processor):
    """Turns what providers gathered, or nothing, into results."""

    kind = "input"


class Assistant(_Processor):
    """Turns results into other results: filters, summaries, explanations."""

    kind = "assistant"


class Check(Capability):
    """Judges gathered data."""

    kind = "check"

    def report(self, settings: Json, input: Json) -> PipelineResult:
        """What it found. It could not judge: raise, which is never the same as compliant."""
        raise NotImplementedError

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def report(body: Object) -> Object:
            return self.report(_settings(body), body.get("input")).json()

        return {"/check/report": report}


class Output(Capability):
    """Brings results to people and programs."""

    kind = "output"

    def send(self, settings: Json, results: List[PipelineResult]) -> None:
        """Sends. It could not: raise."""
        raise NotImplementedError

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def process(body: Object) -> Object:
            self.send(_settings(body), _results(body))
            return {}

        return {"/output/process": process}
