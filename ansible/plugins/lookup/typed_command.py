"""The command of ansible/run.yml as it was typed: -e command="python3 -m x --flag"."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

import ansible.context as ansible_context

from ansible.plugins.lookup import LookupBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: typed_command
short_description: Return the text of -e command=..., blanks included
description:
  - Ansible reads only the first word of it, and takes those behind the first blank for variables of their own.
  - Its term is the variable's value, which is returned where the command was given in another way.
options: {}
"""
BEGIN = "command="


def typed(given: Iterable[str]) -> str:
    """Return the command in the values of -e; empty where none has it as text."""
    text = next((str(one)[len(BEGIN) :] for one in reversed([*given]) if str(one).startswith(BEGIN)), "")
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    # In quotes of its own, as Ansible wants a value with a blank.
    return words[0] if len(words) == 1 else text


class LookupModule(LookupBase):  # type: ignore[misc]
    """Used in a play as lookup('typed_command', command | default(''))."""

    def run(self, terms: list[str], _variables: Any = None, **_kwargs: Any) -> list[str]:
        """Return the command, as one text."""
        return [typed(ansible_context.CLIARGS.get("extra_vars", ())) or terms[0]]
