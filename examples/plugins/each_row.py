#!/usr/bin/env python3
"""A renderer: the template once for each of the context's `rows`, with `$name` for their values."""

from string import Template

from netpulse_plugin import BadRequest, Plugin, Renderer, run


class EachRow(Renderer):
    name = "each_row"
    json_schema = {"context": {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array"}}}}
    examples = {"/template/render": {"template": "vlan $id", "context": {"rows": [{"id": 30}]}}}

    def render(self, template, context, args):
        shared = {key: value for key, value in context.items() if key != "rows"}
        lines = []
        for number, row in enumerate(context["rows"], 1):
            try:
                lines.append(Template(template or "").substitute({**shared, **row}))
            except KeyError as missing:
                raise BadRequest(f"row {number}: the template asks for ${missing.args[0]}, which is not there")
            except (TypeError, ValueError) as error:
                raise BadRequest(f"row {number}: {error}")
        return "\n".join(lines)


run(
    Plugin(
        id="example.org/renderer/each_row/v1",
        version="0.1.0",
        description="A template once for each row",
        provides=[EachRow()],
    )
)
