#!/usr/bin/env python3
"""A renderer: `$name` in a template becomes the variable of that name (Python's string.Template)."""

from string import Template

from netpulse_plugin import BadRequest, Plugin, Renderer, run


class Dollar(Renderer):
    name = "dollar"
    json_schema = {"context": {"type": ["object", "null"]}}
    examples = {"/template/render": {"template": "hostname $name", "context": {"name": "sw1"}}}

    def render(self, template, context, args):
        try:
            return Template(template or "").substitute(context or {})
        except KeyError as missing:
            raise BadRequest(f"the template asks for ${missing.args[0]}, which the context does not have")
        except ValueError as error:
            raise BadRequest(f"the template is wrong: {error}")


run(
    Plugin(
        id="example.org/renderer/dollar/v1",
        version="0.1.0",
        description="Templates with $name in them",
        provides=[Dollar()],
    )
)
