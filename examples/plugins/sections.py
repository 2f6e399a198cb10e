#!/usr/bin/env python3
"""A parser: a configuration becomes a tree, by its indentation. No template is needed."""

from netpulse_plugin import BadRequest, Parser, Plugin, run


class Sections(Parser):
    name = "sections"
    json_schema = {"args": {"type": "object", "properties": {"comment": {"type": "string"}}}}
    examples = {"/template/parse": {"context": "interface Vlan30\n description printers\n"}}

    def parse(self, template, text, args, origin):
        comment = args.get("comment", "!")
        tree = {}
        above = [(-1, tree)]
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith(comment):
                continue
            if "\t" in line:
                raise BadRequest(f"line {number} has a tab in it: the depth cannot be told")
            depth = len(line) - len(line.lstrip())
            while above[-1][0] >= depth:
                above.pop()
            inner = above[-1][1].setdefault(line.strip(), {})
            above.append((depth, inner))
        return tree


run(
    Plugin(
        id="example.org/parser/sections/v1",
        version="0.1.0",
        description="Configurations as trees",
        provides=[Sections()],
    )
)
