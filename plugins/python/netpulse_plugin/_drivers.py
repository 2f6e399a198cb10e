"""Drivers: sessions to devices, commands and changes line by line.

A driver writes what one line does (:class:`Session`); this package asks for leave before each line,
tells about each answer, stops at the first refused line, discards or commits, and says in one word
what took effect.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from ._calls import current_call
from ._changes import Change
from ._errors import BadRequest, NotFound, PluginError
from ._kinds import Capability, Object, take, texts
from ._log import MASKER, secrets_in
from ._server import Answer
from ._sessions import DeviceError, Open, Result, Run, Session, Work, as_result, error_info, known, timed

log = logging.getLogger("netpulse_plugin")

#: Seconds that a forced disconnect waits for the session's own closing.
FORCED = 0.5
#: Seconds that a configuration line on its way has when its run is told to stop.
CANCEL_PATIENCE = 10.0


class Driver(Capability):
    """Reaches devices of some kind."""

    kind = "driver"
    #: ``config``, ``save``, ``keepalive``, ``dry_run``, ``file_transfer``, ``detached``: what sessions
    #: can do.
    features: Sequence[str] = ("config",)
    #: ``pinned`` keeps a session per device, ``fifo`` opens one per job.
    default_queue_strategy = "pinned"
    default_port = 22

    def connect(self, args: Object, keepalive: Optional[float]) -> Session:
        """Opens a session. Raises :class:`DeviceError` with the code of the step that failed."""
        raise NotImplementedError

    def validate(self, request: Object) -> None:
        """Raises :class:`BadRequest` for a request that can be seen to be wrong without a device."""

    def test(self, args: Object) -> Object:
        """Connects, looks and leaves; what it saw."""
        raise NotImplementedError

    # --- the wire -----------------------------------------------------------------------------

    def __init__(self) -> None:
        self._sessions: Dict[str, Open] = {}
        self._runs: Dict[str, Run] = {}
        self._lock = threading.Lock()
        self._changed: Callable[[], None] = lambda: None

    def busy(self) -> bool:
        """Whether a session is open: that counts as work."""
        return bool(self._sessions)

    def _own_features(self) -> List[str]:
        own = ["stream"]
        own += [name for name in ("test", "validate") if self._overrides(name, Driver)]
        return own

    def describe(self) -> Object:
        own = {"default_queue_strategy": self.default_queue_strategy, "default_port": self.default_port}
        return {**super().describe(), **own}

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        return {
            "/driver/connect": self._connect,
            "/driver/send": self._send,
            "/driver/config": self._config,
            "/driver/leave": self._leave,
            "/driver/disconnect": self._disconnect,
            "/driver/alive": self._alive,
            "/driver/test": self._test,
            "/driver/validate": self._validate,
            **(self._detached_endpoints() if "detached" in self.features else {}),
        }

    def _detached_endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        def launch(body: Object) -> Object:
            task, command = take(body, "task_id", str), take(body, "command", str)
            work = Work(driver_args=take(body, "driver_args", dict, {}), job_id=body.get("job_id"))
            return {"task": self._alone(body, lambda session: session.launch(task, command, work)).json()}

        def query(body: Object) -> Object:
            task, offset = take(body, "task_id", str), take(body, "offset", int, 0)
            found, output, following = self._alone(body, lambda session: session.query(task, offset))
            return {"task": found.json(), "output": output, "next_offset": following}

        def kill(body: Object) -> Object:
            task = take(body, "task_id", str)
            return {"killed": bool(self._alone(body, lambda session: session.kill(task)))}

        def tasks(body: Object) -> Object:
            return {"tasks": [task.json() for task in self._alone(body, lambda session: session.tasks())]}

        found = {"launch": launch, "query": query, "kill": kill, "list": tasks}
        return {f"/driver/detached/{name}": handler for name, handler in found.items()}

    def _alone(self, body: Object, work: Callable[[Session], Any]) -> Any:
        """Does something with a session that nobody else is at."""
        opened = self._find(body)
        if not opened.lock.acquire(blocking=False):
            raise BadRequest("this session is at work for another call")
        try:
            return work(opened.session)
        finally:
            opened.lock.release()

    def close(self) -> None:
        """Closes every session, all at once: each may take a moment."""
        with self._lock:
            left = list(self._sessions.values())
            self._sessions.clear()
        threads = [threading.Thread(target=self._shut, args=(open_, True), daemon=True) for open_ in left]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _shut(self, open_: Open, force: bool) -> None:
        if open_.run is not None:
            open_.run.stop("the session was closed")
        try:
            open_.session.close(force)
        except Exception:
            log.warning("%s: the session did not close in order", open_.host, exc_info=True)
        finally:
            MASKER.release(open_.secrets)

    def _find(self, body: Object) -> Open:
        with self._lock:
            found = self._sessions.get(take(body, "session", str))
        if found is None:
            raise PluginError("this session is not known (any more)", 410)
        return found

    def _connect(self, body: Object) -> Object:
        args = take(body, "connection_args", dict)
        keepalive = body.get("keepalive")
        if keepalive is not None and (isinstance(keepalive, bool) or not isinstance(keepalive, (int, float))):
            raise BadRequest("`keepalive` should be a number of seconds")
        call = current_call()
        session = self.connect(args, keepalive)
        secrets = list(secrets_in(args))
        MASKER.hold(secrets)
        opened = Open(session, str(args.get("host") or ""), secrets)
        if call.canceled.is_set():
            # Nobody will ever use it.
            self._shut(opened, False)
            call.check()
        name = uuid.uuid4().hex
        with self._lock:
            self._sessions[name] = opened
        self._changed()
        return {"session": name, "reused": False}

    def _disconnect(self, body: Object) -> Object:
        with self._lock:
            opened = self._sessions.pop(take(body, "session", str), None)
        if opened is not None:
            force = bool(body.get("force"))
            closing = threading.Thread(target=self._shut, args=(opened, force), daemon=True)
            closing.start()
            # With force the host waits a second before it ends the whole plugin; no more lines are
            # sent from here on, however long the closing takes.
            closing.join(FORCED if force else None)
            self._changed()
        return {}

    def _alive(self, body: Object) -> Object:
        opened = self._find(body)
        if not opened.lock.acquire(blocking=False):
            return {"alive": True}  # It is at work.
        try:
            return {"alive": bool(opened.session.alive())}
        except DeviceError as error:
            log.info("%s: no sign of life: %s", opened.host, error)
            return {"alive": False}
        finally:
            opened.lock.release()

    def _test(self, body: Object) -> Object:
        try:
            info = self.test(take(body, "connection_args", dict))
        except DeviceError as error:
            return {"success": False, "error": MASKER.clean(str(error)), "error_type": error.code, "info": {}}
        return {"success": True, "error": None, "error_type": None, "info": info}

    def _validate(self, body: Object) -> Object:
        self.validate(take(body, "request", dict))
        return {}

    def _leave(self, body: Object) -> Object:
        index = body.get("index")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise BadRequest("`index` should be a number")
        leave = take(body, "leave", bool)
        with self._lock:
            run = self._runs.get(take(body, "run", str))
        if run is None:
            raise NotFound("this run is not known (any more)")
        run.answer(index, leave)
        return {}

    def _send(self, body: Object) -> Answer:
        return self._work(body, texts(body, "commands"), self._commands)

    def _config(self, body: Object) -> Answer:
        return self._work(body, texts(body, "lines"), self._change)

    def _work(
        self,
        body: Object,
        lines: List[str],
        how: "Callable[[Open, Run, List[str], Work], Iterator[Object]]",
    ) -> Answer:
        opened = self._find(body)
        options = take(body, "options", dict, {})
        work = Work(
            enable_mode=bool(options.get("enable_mode")),
            save=bool(options.get("save")),
            dry_run=bool(options.get("dry_run")),
            driver_args=take(body, "driver_args", dict, {}),
            file_transfer=body.get("file_transfer"),
            job_id=body.get("job_id"),
        )
        stream = body.get("stream") is True
        granted = take(body, "granted", int, 0) if stream else len(lines)
        name = str(body.get("run") or uuid.uuid4().hex)
        if not opened.lock.acquire(blocking=False):
            raise BadRequest("this session is at work for another call")
        patience = CANCEL_PATIENCE if how == self._change else 0.0
        run = Run(granted, current_call(), opened.session.interrupt, patience)
        opened.run = run
        with self._lock:
            self._runs[name] = run

        def going() -> Iterator[Object]:
            try:
                yield from how(opened, run, lines, work)
            finally:
                run.over()
                with self._lock:
                    self._runs.pop(name, None)
                opened.run = None
                opened.lock.release()

        if stream:
            return going()
        results: List[Object] = []
        done: Object = {}
        for line in going():
            if "result" in line:
                results.append(line["result"])
            done = line.get("done", done)
        return {"results": results, **done}

    def _commands(self, opened: Open, run: Run, lines: List[str], work: Work) -> Iterator[Object]:
        session = opened.session
        error: Optional[PluginError] = None
        try:
            session.begin(work)
        except Exception as failure:
            error = known(opened, failure)
        for index, line in enumerate(lines if error is None else []):
            yield {"sending": index}
            refused = run.leave(index)
            if refused is not None:
                error = DeviceError("canceled", f"{opened.host}: {refused}; stopped before command {index + 1}")
                break
            began = time.monotonic()
            try:
                result = as_result(line, session.command(line, work))
                if run.interrupted:
                    error = DeviceError("canceled", f"{opened.host}: canceled in the middle of command {index + 1}")
                    result.exit_status, result.stderr = 1, "Interrupted"
            except Exception as failure:
                error = known(opened, failure, run)
                result = Result(line, getattr(error, "stdout", ""), MASKER.clean(str(error)), 1)
            yield {"result": self._told(session, timed(result, began))}
            if error is not None:
                break
        if session.usable:
            try:
                session.end(work)
            except Exception as failure:
                log.warning("%s: not back in the first mode: %s", opened.host, failure)
                session.usable = False
        yield {"done": {"error": error_info(error), "usable": session.usable}}

    @staticmethod
    def _told(session: Session, result: Object) -> Object:
        result["metadata"] = {**session.metadata, **result["metadata"]}
        return result

    def _change(self, opened: Open, run: Run, lines: List[str], work: Work) -> Iterator[Object]:
        change = Change(opened, run, lines, work)
        for line in change.going():
            if "result" in line:
                self._told(opened.session, line["result"])
            yield line
        done = change.done()
        for result in done["results"]:
            self._told(opened.session, result)
        yield {"done": done}
