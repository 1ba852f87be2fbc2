package wire

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// Document is what a plugin binary says of itself.
type Document struct {
	// Base is the protocol of the process (see the constant Base).
	Base    int      `json:"base"`
	Plugins []Plugin `json:"plugins"`
	// Checks says that an Open may ask for a check alone.
	Checks bool  `json:"checks,omitempty"`
	Build  Build `json:"build"`
}

// Build is how the binary was made.
type Build struct {
	Go       string `json:"go,omitempty"`
	OS       string `json:"os,omitempty"`
	Arch     string `json:"arch,omitempty"`
	Module   string `json:"module,omitempty"`
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
}

// Plugin is one plugin of the binary.
type Plugin struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Summary string `json:"summary"`
	// Protocols are the protocol numbers of its kind that it speaks.
	Protocols []uint32     `json:"protocols"`
	Config    []sdk.Field  `json:"config"`
	Transport *Transport   `json:"transport,omitempty"`
	Storage   *StorageInfo `json:"storage,omitempty"`
	Ledger    *LedgerInfo  `json:"ledger,omitempty"`
}

// Transport is the rest of a transport's descriptor.
type Transport struct {
	Resistance string           `json:"resistance"`
	Throughput string           `json:"throughput"`
	LowLatency string           `json:"low_latency"`
	Anonymity  string           `json:"anonymity"`
	Needs      []transport.Need `json:"needs"`
	HalfClose  bool             `json:"half_close"`
	DeviceKeys bool             `json:"device_keys,omitempty"`
}

// StorageInfo is a storage's traits.
type StorageInfo struct {
	Batch  int  `json:"batch"`
	Lanes  int  `json:"lanes"`
	Shared bool `json:"shared"`
	Source bool `json:"source,omitempty"`
}

// LedgerInfo is the rest of a ledger's descriptor.
type LedgerInfo struct {
	Forgets bool `json:"forgets"`
}

// KindName is a kind's name in documents.
func KindName(k sdk.Kind) string {
	switch k {
	case sdk.Transport:
		return "transport"
	case sdk.Storage:
		return "storage"
	case sdk.Ledger:
		return "ledger"
	}
	return "unknown"
}

// Describe writes the document of a binary's plugins.
func Describe(plugins []sdk.Plugin, protocols func(sdk.Kind) []uint32) Document {
	d := Document{Base: Base, Checks: true, Build: build()}
	for _, p := range plugins {
		one := Plugin{
			Kind: KindName(p.Kind()), Name: p.Name(), Version: p.Version(), Summary: p.Summary(),
			Protocols: protocols(p.Kind()), Config: sdk.Fields(p.Config()),
		}
		switch o := p.(type) {
		case transport.Opener:
			t := o.Descriptor()
			one.Transport = &Transport{
				Resistance: t.Resistance.String(), Throughput: t.Throughput.String(), LowLatency: t.LowLatency.String(),
				Anonymity: t.Anonymity.String(), Needs: append([]transport.Need{}, t.Needs...), HalfClose: t.HalfClose,
				DeviceKeys: t.DeviceKeys,
			}
		case storage.Opener:
			t := o.Traits()
			one.Storage = &StorageInfo{Batch: t.Batch, Lanes: t.Lanes, Shared: t.Shared, Source: t.Source}
		case ledger.Opener:
			one.Ledger = &LedgerInfo{Forgets: o.Forgets()}
		}
		d.Plugins = append(d.Plugins, one)
	}
	return d
}

func build() Build {
	b := Build{Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Module, b.Version = info.Main.Path, info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// Limits of a document.
const (
	maxPlugins = 32
	maxFields  = 256
	maxDoc     = 2 << 10
	maxNeeds   = 32
	maxLanes   = 64
	maxBatch   = 1 << 16
)

// ParseDocument reads and checks a document. Fields that are not known are ignored:
// they may have been added later. The error has kind sdk.Invalid.
func ParseDocument(b []byte) (Document, error) {
	var d Document
	if len(b) > MaxDocument {
		return d, invalid("it is longer than %d bytes", MaxDocument)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, invalid("it is no JSON of the expected form")
	}
	if len(d.Plugins) == 0 || len(d.Plugins) > maxPlugins {
		return d, invalid("it names %d plugins, want 1 to %d", len(d.Plugins), maxPlugins)
	}
	seen := map[string]bool{}
	for i := range d.Plugins {
		p := &d.Plugins[i]
		if err := p.check(); err != nil {
			return d, err
		}
		if seen[p.Name] {
			return d, invalid("two plugins are called %s", p.Name)
		}
		seen[p.Name] = true
	}
	for _, s := range []*string{&d.Build.Go, &d.Build.OS, &d.Build.Arch, &d.Build.Module, &d.Build.Version, &d.Build.Revision, &d.Build.Time} {
		*s = clean(*s, 256)
	}
	return d, nil
}

func invalid(format string, args ...any) error {
	return &sdk.Error{Kind: sdk.Invalid, Op: "the plugin's description", Text: fmt.Sprintf(format, args...)}
}

func (p *Plugin) check() error {
	if !validName(p.Name) {
		return invalid("%q is no name: 1 to 32 of a-z 0-9 -", clean(p.Name, 64))
	}
	if p.Version == "" || len(p.Version) > 64 || len(p.Summary) > 512 {
		return invalid("%s has no version, or texts that are too long", p.Name)
	}
	p.Version, p.Summary = clean(p.Version, 64), clean(p.Summary, 512)
	if len(p.Protocols) == 0 || len(p.Protocols) > 16 {
		return invalid("%s names %d protocol numbers", p.Name, len(p.Protocols))
	}
	parts := map[string]bool{"transport": p.Transport != nil, "storage": p.Storage != nil, "ledger": p.Ledger != nil}
	if !parts[p.Kind] {
		return invalid("%s is of kind %q without that kind's part", p.Name, clean(p.Kind, 32))
	}
	if t := p.Transport; t != nil && len(t.Needs) > maxNeeds {
		return invalid("%s has %d needs, at most %d", p.Name, len(t.Needs), maxNeeds)
	}
	if s := p.Storage; s != nil {
		s.Batch, s.Lanes = min(max(s.Batch, 1), maxBatch), min(max(s.Lanes, 1), maxLanes)
	}
	return p.checkConfig()
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// checkConfig makes the configuration struct once: what package sdk would find
// malformed in a struct is found here.
func (p *Plugin) checkConfig() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = invalid("%s: %s", p.Name, clean(fmt.Sprint(r), 256))
		}
	}()
	t, err := structOf(p.Config, 0)
	if err != nil {
		return invalid("%s: %v", p.Name, err)
	}
	sdk.Defaults(reflect.New(t).Interface())
	return nil
}

// NewConfig gives a pointer to a configuration struct that has the described fields
// and their defaults.
func (p *Plugin) NewConfig() any {
	t, err := structOf(p.Config, 0)
	if err != nil {
		t = reflect.TypeFor[struct{}]() // the document was checked
	}
	v := reflect.New(t).Interface()
	sdk.Defaults(v)
	return v
}

func structOf(fields []sdk.Field, depth int) (reflect.Type, error) {
	if depth > 4 || len(fields) > maxFields {
		return nil, fmt.Errorf("the configuration has too many fields or levels")
	}
	out := make([]reflect.StructField, 0, len(fields))
	seen := map[string]bool{}
	for i, f := range fields {
		if len(f.Name) > 64 || len(f.Doc) > maxDoc || len(f.Default) > maxDoc || len(f.Enum) > maxFields || seen[f.Name] {
			return nil, fmt.Errorf("key %q stands twice or is too long", clean(f.Name, 64))
		}
		seen[f.Name] = true
		if err := checkBounds(f); err != nil {
			return nil, err
		}
		t, err := typeOf(f, depth)
		if err != nil {
			return nil, err
		}
		out = append(out, reflect.StructField{Name: "F" + strconv.Itoa(i), Type: t, Tag: tag(f)})
	}
	return reflect.StructOf(out), nil
}

// checkBounds reads what package sdk reads only when a value is given.
func checkBounds(f sdk.Field) error {
	for _, b := range []string{f.Min, f.Max} {
		if b == "" {
			continue
		}
		var err error
		switch f.Type {
		case "duration":
			_, err = sdk.ParseDuration(b)
		case "size":
			_, err = sdk.ParseSize(b)
		default:
			_, err = strconv.ParseFloat(b, 64)
		}
		if err != nil {
			return fmt.Errorf("key %q has the bound %q", clean(f.Name, 64), clean(b, 64))
		}
	}
	return nil
}

func typeOf(f sdk.Field, depth int) (reflect.Type, error) {
	if rest, ok := strings.CutPrefix(f.Type, "list of "); ok {
		t, err := elemOf(f, rest, depth)
		if err != nil {
			return nil, err
		}
		return reflect.SliceOf(t), nil
	}
	if rest, ok := strings.CutPrefix(f.Type, "map of "); ok {
		t, err := elemOf(f, rest, depth)
		if err != nil {
			return nil, err
		}
		return reflect.MapOf(reflect.TypeFor[string](), t), nil
	}
	switch f.Type {
	case "table":
		return structOf(f.Fields, depth+1)
	case "rest":
		return reflect.TypeFor[map[string]any](), nil
	}
	return leaf(f.Type), nil
}

func elemOf(f sdk.Field, name string, depth int) (reflect.Type, error) {
	if name == "tables" {
		return structOf(f.Fields, depth+1)
	}
	if strings.HasPrefix(name, "list of ") || strings.HasPrefix(name, "map of ") || name == "rest" {
		return nil, fmt.Errorf("key %q has the type %q", clean(f.Name, 64), clean(f.Type, 64))
	}
	return leaf(name), nil
}

// leaf is the type of a named kind of value. A name of the plugin's own is a text
// for everybody else.
func leaf(name string) reflect.Type {
	switch name {
	case "bool":
		return reflect.TypeFor[bool]()
	case "integer":
		return reflect.TypeFor[int64]()
	case "number":
		return reflect.TypeFor[float64]()
	case "duration":
		return reflect.TypeFor[time.Duration]()
	case "size":
		return reflect.TypeFor[sdk.Size]()
	case "file":
		return reflect.TypeFor[sdk.File]()
	case "secret":
		return reflect.TypeFor[sdk.Secret]()
	}
	return reflect.TypeFor[string]()
}

func tag(f sdk.Field) reflect.StructTag {
	var b strings.Builder
	for _, p := range []struct{ key, value string }{
		{"cfg", f.Name}, {"default", f.Default}, {"doc", f.Doc}, {"enum", strings.Join(f.Enum, ",")}, {"min", f.Min}, {"max", f.Max},
	} {
		if p.value != "" {
			fmt.Fprintf(&b, "%s:%s ", p.key, strconv.Quote(p.value))
		}
	}
	if f.Required {
		b.WriteString(`required:"true"`)
	}
	return reflect.StructTag(strings.TrimSpace(b.String()))
}

// SDKKind is the kind of a checked description.
func (p *Plugin) SDKKind() sdk.Kind {
	switch p.Kind {
	case "transport":
		return sdk.Transport
	case "storage":
		return sdk.Storage
	}
	return sdk.Ledger
}

// LevelOf reads a level's name; an unknown one is none.
func LevelOf(name string) transport.Level {
	for _, l := range []transport.Level{transport.Low, transport.Medium, transport.High} {
		if l.String() == name {
			return l
		}
	}
	return transport.None
}
