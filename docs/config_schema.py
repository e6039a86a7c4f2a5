"""Make the JSON schema of job files: their types from the code, what keys mean from config.md.

Run `python docs/config_schema.py` after a change of either.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

import edgewise
from edgewise.cli.job.config import Sections
from edgewise.cli.job.toml_sections import Rows

PAGE = Path(__file__).parent / "config.md"
ROW = r"^\| (`.*?) \| (.*) \| (.*) \|$"
SCHEMA = Path(edgewise.__file__).parent / "cli/job/edgewise.schema.json"


class Plain(GenerateJsonSchema):
    """Without null, which TOML does not have, and without titles and docstrings."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        return {key: value for key, value in found.items() if (key, value) != ("default", None)}

    def encode_default(self, dft: Any) -> Any:
        return str(dft) if isinstance(dft, Rows) else super().encode_default(dft)

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        found = super().dataclass_schema(schema)
        return {k: v for k, v in found.items() if k not in ("title", "description")}


def tables(page: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Meaning and default of every key of every section, as the page's tables have them."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for chapter in re.split(r"^## ", page, flags=re.M)[1:]:
        keys = found[re.findall(r"`\[(.*?)\]`", chapter)[0]] = {}
        for names, meaning, default in re.findall(ROW, chapter, re.M):
            known = re.findall("`(.*?)`", names)
            defaults = default.split(", ") if len(known) > 1 else [default]
            for place, name in enumerate(known):  # several keys share a meaning
                keys[name] = plain(meaning), defaults[min(place, len(defaults) - 1)]
    return found


def plain(text: str) -> str:
    """Markdown without links; those in brackets only lead on."""
    return re.sub(r"\[(.*?)\]\(.*?\)", r"\1", re.sub(r" \(\[[^]]*\]\([^)]*\)\)", "", text))


def schema(page: str) -> str:
    """The JSON schema as text.

    Raises:
        ValueError: page and code have not the same sections and keys.
    """
    made = TypeAdapter(Sections).json_schema(schema_generator=Plain)
    definitions, told = made.pop("$defs"), tables(page)
    sections = {
        name: definitions[section["$ref"].rpartition("/")[2]]
        for name, section in made["properties"].items()
    }
    known = {name: set(section["properties"]) for name, section in sections.items()}
    if known != {name: set(keys) for name, keys in told.items()}:
        raise ValueError(f"config.md has other keys than the code: {known} and {told}")
    for name, section in sections.items():
        for key, value in section["properties"].items():
            meaning, default = told[name][key]
            by_default = "" if "default" in value or default == "required" else default
            value["description"] = meaning + (f" (default: {by_default})" if by_default else "")
    made |= {"$schema": "http://json-schema.org/draft-07/schema#", "title": "A job of edgewise"}
    made["properties"] = {name: f"<{name}>" for name in sections}
    text = json.dumps(made, indent=1) + "\n"
    for name, section in sections.items():  # a line each
        text = text.replace(f'"<{name}>"', json.dumps(section, ensure_ascii=False))
    return text


if __name__ == "__main__":
    SCHEMA.write_text(schema(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
