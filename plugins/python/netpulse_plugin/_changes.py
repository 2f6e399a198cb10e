"""A change, line by line: what was accepted, what was refused, and what took effect."""

from __future__ import annotations

import time
from typing import Iterator, List, Optional

from ._errors import PluginError
from ._kinds import Object
from ._log import MASKER
from ._sessions import DeviceError, Open, Rejected, Result, Run, Work, as_result, error_info, known, timed


class Change:
    """One change, from entering the configuration mode to leaving it."""

    def __init__(self, opened: Open, run: Run, lines: List[str], work: Work) -> None:
        self._opened = opened
        self._session = opened.session
        self._run = run
        self._lines = lines
        self._work = work
        self._error: Optional[PluginError] = None
        self._outcome = "not_applied"
        self._untouched = True
        self._results: List[Result] = []

    def going(self) -> Iterator[Object]:
        session, work = self._session, self._work
        try:
            session.enter_config(work)
        except Exception as failure:
            self._error = known(self._opened, failure, default="config_mode_failed")
            self._results = [self._unsent(line, f"Not sent: {self._error}") for line in self._lines]
            return
        broken = False
        for index, line in enumerate(self._lines):
            yield {"sending": index}
            refused = self._run.leave(index)
            if refused is not None:
                place = "no line was sent" if index == 0 else f"stopped between line {index} and line {index + 1}"
                self._error = DeviceError("canceled", f"{self._opened.host}: {refused}; {place}")
                break
            self._untouched = False
            began = time.monotonic()
            result, broken = self._one(index, line)
            self._results.append(result)
            last = index + 1 == len(self._lines)
            # The last line waits: what commit and save say stands in its answer.
            if self._error is not None or not last:
                yield {"result": timed(result, began)}
            if self._error is not None:
                break
        else:
            if self._lines:
                result = self._results[-1]
                timed(result, began)
            self._finish()
            if self._lines:
                yield {"result": self._results[-1].json()}
            return
        self._stopped(broken)
        skipped = self._lines[len(self._results) :]
        because = self._results[-1] if self._results and self._results[-1].exit_status else None
        why = f"Skipped due to previous error in execution of '{because.command}'" if because else "Not sent: canceled"
        # Only announced lines are told; `done` has them all.
        self._results += [self._unsent(line, why) for line in skipped]

    @staticmethod
    def _unsent(line: str, why: str) -> Result:
        return Result(line, "", MASKER.clean(why), 1)

    def _one(self, index: int, line: str) -> "tuple[Result, bool]":
        place = f"line {index + 1} of {len(self._lines)}"
        host = self._opened.host
        try:
            result = as_result(line, self._session.line(line, self._work))
        except Rejected as said:
            self._error = DeviceError("line_rejected", f"{host}: {place} was rejected: `{line}`: {said}")
            text = MASKER.clean(f"Device reported configuration error: {said}")
            return Result(line, said.stdout, text, 1), False
        except Exception as failure:
            error = known(self._opened, failure, self._run)
            code = getattr(error, "code", "plugin_failed")
            self._error = DeviceError(code, f"{error}; {place} was in flight")
            return Result(line, getattr(error, "stdout", ""), MASKER.clean(str(error)), 1), True
        if result.exit_status != 0:
            self._error = DeviceError("line_rejected", f"{host}: {place} was rejected: `{line}`: {result.stderr}")
        return result, False

    def _stopped(self, broken: bool) -> None:
        """Not all lines went through."""
        accepted = sum(result.exit_status == 0 for result in self._results)
        if self._session.candidate:
            # Nothing takes effect before the commit, which was not sent.
            if self._session.usable:
                self._discard()
            else:
                self._add("nothing was committed, but the device may keep the candidate")
        elif broken:
            self._outcome = "unknown"
        else:
            self._outcome = "partial" if accepted else "not_applied"
        self._leave()

    def _add(self, more: str) -> None:
        code = getattr(self._error, "code", "plugin_failed")
        self._error = DeviceError(code, f"{self._error}; {more}")

    def _discard(self) -> None:
        self._outcome = "not_applied"
        try:
            self._session.discard(self._work)
        except Exception as failure:
            self._session.usable = False
            self._add(f"the candidate could not be discarded: {known(self._opened, failure)}")
            return
        for result in self._results:
            if result.exit_status == 0:
                result.metadata["discarded"] = True
        if self._error is not None:
            self._add("the candidate was discarded, nothing took effect")

    def _finish(self) -> None:
        """Every line was accepted."""
        session, work = self._session, self._work
        if session.candidate and work.dry_run:
            try:
                self._append(session.compare(work))
            except Exception as failure:
                self._error = known(self._opened, failure)
            self._discard()
        elif session.candidate:
            try:
                self._append(session.commit(work))
                self._outcome = "applied"
            except Rejected as said:
                self._error = DeviceError("commit_failed", f"{self._opened.host}: the commit was refused: {said}")
                self._append(said.stdout)
                self._discard()
            except Exception as failure:
                error = known(self._opened, failure)
                self._outcome = "unknown"
                code = getattr(error, "code", "plugin_failed")
                self._error = DeviceError(code, f"{error}; the commit was in flight")
        else:
            self._outcome = "applied"
        self._leave()
        if work.save and self._error is None:
            try:
                self._append(session.save(work))
            except Exception as failure:
                error = known(self._opened, failure)
                self._error = DeviceError("save_failed", f"{error}; the lines were applied, but not saved")

    def _append(self, said: str) -> None:
        if said.strip() and self._results:
            before = str(self._results[-1].stdout)
            self._results[-1].stdout = f"{before}\n{said.strip()}" if before else said.strip()

    def _leave(self) -> None:
        if not self._session.usable:
            return
        try:
            self._session.leave_config(self._work)
        except Exception as failure:
            self._session.usable = False
            self._error = self._error or known(self._opened, failure)

    def done(self) -> Object:
        done: Object = {"error": error_info(self._error), "outcome": self._outcome, "usable": self._session.usable}
        # Whole, since a line's text may have grown after it was told.
        done["results"] = [result.json() for result in self._results]
        done["untouched"] = self._untouched and self._error is not None
        return done
