#!/usr/bin/env python3
"""The kinds of a pipeline, one each: a provider that reads devices from a CSV file, an input that
keeps some of them, a check that judges their names, an assistant that sorts, an output that writes."""

import csv
import json
from collections import Counter

from netpulse_plugin import (
    Assistant,
    BadRequest,
    Check,
    Input,
    Output,
    PipelineResult,
    Plugin,
    Provider,
    Unavailable,
    run,
)


def setting(settings, key):
    if not isinstance(settings, dict) or not isinstance(settings.get(key), str):
        raise BadRequest(f"the setting `{key}` is missing")
    return settings[key]


class CsvDevices(Provider):
    name = "csv_devices"
    json_schema = {"settings": {"type": "object", "required": ["path"]}}

    def gather(self, settings):
        path = setting(settings, "path")
        try:
            file = open(path, newline="")
        except OSError as error:
            # Missing data is an error, never an empty result.
            raise Unavailable(f"{path}: {error.strerror}")
        with file:
            count = 0
            for row in csv.DictReader(file):
                count += 1
                yield row
        return PipelineResult("inventory", "csv_devices", f"{count} devices in {path}")


class Site(Input):
    name = "site"

    def process(self, settings, results):
        site = setting(settings, "site")
        for result in results:
            result.details = [row for row in result.details or [] if row.get("site") == site]
        return results


class UniqueNames(Check):
    name = "unique_names"

    def report(self, settings, input):
        if not isinstance(input, list):
            raise BadRequest("the input should be a list of devices")
        twice = [name for name, count in Counter(row.get("name") for row in input).items() if count > 1]
        return PipelineResult(
            "inventory",
            "unique_names",
            f"{len(twice)} names are used more than once",
            {"duplicates": twice},
            "\n".join(twice) or "No duplicates found.",
        )


class WorstFirst(Assistant):
    name = "worst_first"
    examples = {"/assistant/process": {"settings": {}, "results": []}}

    def process(self, settings, results):
        return sorted(results, key=lambda result: -len(json.dumps(result.details)))


class JsonFile(Output):
    name = "json_file"

    def send(self, settings, results):
        path = setting(settings, "path")
        try:
            with open(path, "w") as file:
                json.dump([result.json() for result in results], file, indent=2)
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}")


run(
    Plugin(
        id="example.org/pipeline/inventory/v1",
        version="0.1.0",
        description="An inventory in a CSV file, judged",
        provides=[CsvDevices(), Site(), UniqueNames(), WorstFirst(), JsonFile()],
    )
)
