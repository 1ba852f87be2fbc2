package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/commucat/commucat/sdk"
)

const referenceHead = `# Configuration

<!-- Made from core/config by go test ./core/config -update. Do not edit. -->

The relay reads one TOML file: ` + "`commucat serve --config FILE`" + `. Everything has a default, so that the
file may be empty or absent. An unknown key is an error, and all mistakes are reported at once with
file, line and column.

- Every key can be set by an environment variable, which wins over the file: ` + "`COMMUCAT_SECTION_KEY`" + `.
  Lists are written with commas.
- Durations are text: ` + "`\"250ms\"`, `\"30s\"`, `\"12h\"`, `\"14d\"`" + `. Sizes too: ` + "`\"64KiB\"`, `\"1GiB\"`, `\"5MB\"`" + `.
- A secret is the text itself, or ` + "`\"file:PATH\"`, `\"env:NAME\"` or `\"credential:NAME\"`" + ` (systemd). It is never printed.
- Relative paths start in the folder of the file. A path may be ` + "`\"credential:NAME\"`" + ` as well.

The keys of the storages and ledgers are on a [page of their own](plugin-keys.md).
`

// Reference is docs/configuration.md.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	for _, s := range sdk.Fields(Config{}) {
		title := s.Name
		if strings.HasPrefix(s.Type, "map of ") {
			title += ".NAME"
		}
		fmt.Fprintf(&b, "\n## [%s]\n\n%s\n", title, s.Doc)
		if onlyRest(s.Fields) {
			continue
		}
		b.WriteString("\n" + KeyTable(s.Fields))
		fmt.Fprintf(&b, "\nEnvironment: `%s`, and so on.\n", Variable(title+"."+s.Fields[0].Name))
	}
	return b.Bytes()
}

// KeyTable describes the keys of one table in Markdown.
func KeyTable(fields []sdk.Field) string {
	var b strings.Builder
	b.WriteString("| Key | Type | Default | Meaning |\n|---|---|---|---|\n")
	for _, f := range fields {
		if f.Name != "*" {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, typeText(f), code(value(f)), sentence(f.Doc))
		}
	}
	return b.String()
}

func onlyRest(fields []sdk.Field) bool { return len(fields) == 1 && fields[0].Name == "*" }

func typeText(f sdk.Field) string {
	t := f.Type
	if len(f.Enum) > 0 {
		t = "`" + strings.Join(f.Enum, "`, `") + "`"
	}
	switch {
	case f.Min != "" && f.Max != "":
		t += fmt.Sprintf(", %s to %s%s", f.Min, f.Max, boundUnit(f))
	case f.Min != "":
		t += ", at least " + f.Min + boundUnit(f)
	case f.Max != "":
		t += ", at most " + f.Max + boundUnit(f)
	}
	return t
}

func boundUnit(f sdk.Field) string {
	switch {
	case strings.HasPrefix(f.Type, "list of "), strings.HasPrefix(f.Type, "map of "):
		return " entries"
	case f.Type == "text", f.Type == "secret":
		return " bytes"
	}
	return ""
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func sentence(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// value is the default as TOML, "" for a key that is empty by default and
// whose emptiness the text explains.
func value(f sdk.Field) string {
	switch {
	case strings.HasPrefix(f.Type, "list of "):
		if f.Default == "" {
			return "[]"
		}
		parts := strings.Split(f.Default, ",")
		for i, p := range parts {
			parts[i] = fmt.Sprintf("%q", p)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case f.Type == "bool":
		if f.Default == "" {
			return "false"
		}
		return f.Default
	case f.Type == "integer", f.Type == "number":
		if f.Default == "" {
			return "0"
		}
		return f.Default
	}
	return fmt.Sprintf("%q", f.Default)
}

const sampleHead = `# CommuCat relay. Every key shows its default; remove the # to change it.
# Check with: commucat config check FILE
`

// Sample is a commented commucat.toml in which every key stands with its default.
func Sample() []byte {
	var b bytes.Buffer
	b.WriteString(sampleHead)
	for _, s := range sdk.Fields(Config{}) {
		b.WriteString("\n")
		comment(&b, s.Doc)
		if strings.HasPrefix(s.Type, "map of ") {
			fmt.Fprintf(&b, "# [%s.NAME]\n", s.Name)
		} else {
			fmt.Fprintf(&b, "[%s]\n", s.Name)
		}
		for _, f := range s.Fields {
			if f.Name == "*" {
				continue
			}
			b.WriteString("\n")
			text := f.Doc
			if len(f.Enum) > 0 {
				text += ": " + strings.Join(f.Enum, ", ")
			}
			comment(&b, text)
			fmt.Fprintf(&b, "# %s = %s\n", f.Name, value(f))
		}
	}
	return b.Bytes()
}

// comment wraps text at 100 columns.
func comment(b *bytes.Buffer, text string) {
	line := "##"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = "##"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// Schema is a JSON schema (2020-12) of the file, for editors.
func Schema() []byte {
	root := object(sdk.Fields(Config{}))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "commucat.toml"
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // maps of strings, numbers and booleans
	}
	return append(out, '\n')
}

func object(fields []sdk.Field) map[string]any {
	properties, open, required := map[string]any{}, false, []string{}
	for _, f := range fields {
		if f.Name == "*" {
			open = true
			continue
		}
		properties[f.Name] = property(f)
		if f.Required {
			required = append(required, f.Name)
		}
	}
	o := map[string]any{"type": "object", "properties": properties, "additionalProperties": open}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

func property(f sdk.Field) map[string]any {
	var p map[string]any
	elem := f
	elem.Doc, elem.Default, elem.Min, elem.Max = "", "", "", ""
	switch {
	case f.Type == "table":
		p = object(f.Fields)
	case f.Type == "list of tables":
		p = map[string]any{"type": "array", "items": object(f.Fields)}
	case f.Type == "map of tables":
		p = map[string]any{"type": "object", "additionalProperties": object(f.Fields)}
	case strings.HasPrefix(f.Type, "list of "):
		elem.Type = strings.TrimPrefix(f.Type, "list of ")
		p = map[string]any{"type": "array", "items": property(elem)}
	case strings.HasPrefix(f.Type, "map of "):
		elem.Type = strings.TrimPrefix(f.Type, "map of ")
		p = map[string]any{"type": "object", "additionalProperties": property(elem)}
	default:
		p = leafSchema(f)
	}
	if f.Doc != "" {
		p["description"] = f.Doc
	}
	if f.Default != "" {
		p["default"] = json.RawMessage(value(f))
	}
	return p
}

func leafSchema(f sdk.Field) map[string]any {
	switch f.Type {
	case "bool":
		return map[string]any{"type": "boolean"}
	case "integer", "number":
		p := map[string]any{"type": f.Type}
		if f.Min != "" {
			p["minimum"] = json.Number(f.Min)
		}
		if f.Max != "" {
			p["maximum"] = json.Number(f.Max)
		}
		return p
	case "duration":
		return map[string]any{"type": "string", "pattern": `^([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*$`}
	case "size":
		return map[string]any{"type": "string", "pattern": `^[0-9.]+ *([KMGT]i?B|kB|B)?$`}
	}
	p := map[string]any{"type": "string"}
	if len(f.Enum) > 0 {
		p["enum"] = f.Enum
	}
	return p
}
