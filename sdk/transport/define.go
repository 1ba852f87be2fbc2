package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/commucat/commucat/sdk"
)

// Level grades a property of a transport.
type Level uint8

// The levels.
const (
	None Level = iota
	Low
	Medium
	High
)

// String is the level in words.
func (l Level) String() string {
	switch l {
	case None:
		return "none"
	case Low:
		return "low"
	case Medium:
		return "medium"
	case High:
		return "high"
	}
	return "unknown"
}

// NeedKind says what a transport's server half needs of its machine.
type NeedKind string

// The kinds of need. The sandbox of a plugin process is made from them: what is
// not named here is refused.
const (
	// TCPPort and UDPPort: sockets that the relay binds and lends (Env.Listen,
	// Env.ListenPacket).
	TCPPort NeedKind = "tcp-port"
	UDPPort NeedKind = "udp-port"
	// Outbound: connections to other hosts, TCP or UDP (a cover site, a broker).
	Outbound NeedKind = "outbound"
	// Program: another program that is started; Value is its name. "$KEY" is what that
	// key of the plugin's table names, and "$KEY|NAME|NAME…" without that key whichever
	// of the names is installed; what is missing then is the plugin's to report.
	Program NeedKind = "program"
	// StateFolder: files that must survive a restart (Env.State).
	StateFolder NeedKind = "state-folder"
	// CoverSite: the relay's cover (Env.Cover).
	CoverSite NeedKind = "cover"
)

// Need is one thing that a transport's server half needs.
type Need struct {
	Kind  NeedKind `json:"kind"`
	Value string   `json:"value,omitempty"`
}

// Descriptor is what a transport plugin says of itself before it is opened.
type Descriptor struct {
	Name, Version, Summary string
	// Resistance is against blocking and probing, LowLatency of small messages,
	// Anonymity of the client towards the relay.
	Resistance, Throughput, LowLatency, Anonymity Level
	Needs                                         []Need
	// HalfClose says that the streams of both halves have CloseWrite. Without
	// it the end of a stream is its close.
	HalfClose bool
	// DeviceKeys says that devices have keys of their own for this transport (see
	// KeyMaker). Define sets it where there is a NewKey.
	DeviceKeys bool
}

// Funcs are the halves of a transport; every field is optional. C is the
// configuration struct (see sdk.Fields) of both halves; the client half usually
// has an empty table, so keys that only one half needs must not be required: that
// half checks them.
type Funcs[C any] struct {
	// Listen starts the server half. It returns once sockets are bound; what it
	// must learn first it reports by env.Degraded, and the transport is not
	// offered to clients until env.Degraded(nil). ctx bounds the start alone;
	// closing the listener ends everything that Listen began. Accepted conns
	// should have PathFacts; one with a method HandshakeContext(context.Context)
	// error (as tls.Conn) is handed on after it has returned nil, and Accept
	// never waits for a handshake. The listener may be a Server as well.
	Listen func(ctx context.Context, env sdk.Env, c C) (net.Listener, error)
	// Dial opens a stream to a relay.
	Dial func(ctx context.Context, env sdk.Env, c C, to Endpoint, with Dial) (net.Conn, error)
	// Probe answers whether the server half could serve a client now: nil, or
	// what is wrong and what to do.
	Probe func(ctx context.Context, env sdk.Env, c C) error
	// Check says what the server half would refuse in a configuration beyond what C's
	// own Check does, which both halves have. It opens no socket, touches no file and
	// speaks to nobody: the relay asks before it starts anything.
	Check func(c C) error
	// NewKey draws a device's key pair, where the transport's devices have one.
	NewKey func() (private, public []byte, err error)
}

// Server may be implemented by a listener of a transport whose clients must know
// more than an address. Methods may be called concurrently.
type Server interface {
	net.Listener
	// Invite answers how a client reaches this listener from outside: host is
	// the relay's public name, the port is the listener's own. With a zero Guest
	// it answers what is the same for all. An error of kind Conflict says that the
	// guest's key is another guest's, or can be nobody's: the relay forgets it then.
	Invite(ctx context.Context, host string, g Guest) (Endpoint, error)
	// Revoke ends what Invite allowed to a guest, and that guest's connections,
	// within a second. An unknown id is no error.
	Revoke(ctx context.Context, id string) error
}

// Guest is for whom an invitation is made.
type Guest struct {
	// ID is the id of a link or a device, "" for nobody in particular.
	ID string
	// Public is the guest's own public key for this transport, made by
	// KeyMaker; nil where the transport has no such keys, or where it shall draw
	// a pair whose private half the endpoint carries (a link is a secret).
	Public []byte
	// Expires ends what is allowed; zero is until Revoke.
	Expires time.Time
}

// Registrar may be implemented by a Server that must know the keys of devices before
// they come, and keeps them in memory or where they can be lost.
type Registrar interface {
	// Register lets guests with keys of their own in, as Invite does, many at a time:
	// the relay hands over all that it knows whenever the listener begins to serve.
	// Their keys are good where Invite with a zero Guest says. A guest that is known with the same key costs nothing. One that cannot be let in
	// must not keep the others out; the error then says how many could not.
	Register(ctx context.Context, guests []Guest) error
}

// Replacer may be implemented by a Registrar that keeps guests where they outlive it: it may
// know devices that were revoked while nobody could tell it.
type Replacer interface {
	Registrar
	// Replacing says that the relay is about to hand over all devices; a list that was begun
	// before is none any more.
	Replacing(ctx context.Context) error
	// Replaced says that the list is whole: who has a key of its own, and came since Replacing
	// neither by Register nor by Invite, is revoked, as by Revoke. Links stay. Without a
	// Replacing of the same listener it is an error of kind Invalid, and changes nothing.
	Replaced(ctx context.Context) error
}

// MaxRegister is the most guests that one call of Register is given.
const MaxRegister = 1000

// KeyMaker is implemented by dialers and by what Open returns: devices of some
// transports have a key of their own. It is made on the device; the relay learns
// the public half alone.
type KeyMaker interface {
	// NewKey draws a key pair, the private half for Dial.Key; Unsupported where
	// the transport has no such keys.
	NewKey() (private, public []byte, err error)
}

// Opened is an opened transport.
type Opened interface {
	// Listen starts the server half; Unsupported where there is none.
	Listen(ctx context.Context) (net.Listener, error)
	// Dial opens a stream to a relay; Unsupported where there is no client half.
	Dial(ctx context.Context, to Endpoint, with Dial) (net.Conn, error)
	// Probe asks whether a client would get through; nil where the transport
	// cannot tell.
	Probe(ctx context.Context) error
	// Close ends what Open began, not listeners and streams.
	Close() error
}

// Opener is a transport plugin as Open needs it. Define's plugins implement it, and
// so does whatever stands for a plugin in another process.
type Opener interface {
	sdk.Plugin
	Descriptor() Descriptor
	// Open reads the configuration; ctx bounds the opening alone.
	Open(ctx context.Context, env sdk.Env, raw map[string]any) (Opened, error)
}

// ServerChecker is implemented by Define's plugins.
type ServerChecker interface {
	// CheckServer says what the server half would refuse in a configuration, an
	// sdk.ConfigErrors as from Open, without opening anything.
	CheckServer(raw map[string]any) error
}

// Define makes a transport plugin.
func Define[C any](d Descriptor, f Funcs[C]) sdk.Plugin {
	sdk.Fields(*new(C)) // a malformed struct shows here, not in production
	d.DeviceKeys = f.NewKey != nil
	return &definition[C]{d, f}
}

type definition[C any] struct {
	d Descriptor
	f Funcs[C]
}

func (d *definition[C]) Kind() sdk.Kind         { return sdk.Transport }
func (d *definition[C]) Name() string           { return d.d.Name }
func (d *definition[C]) Version() string        { return d.d.Version }
func (d *definition[C]) Summary() string        { return d.d.Summary }
func (d *definition[C]) Descriptor() Descriptor { return d.d }

func (d *definition[C]) Config() any {
	c := new(C)
	sdk.Defaults(c)
	return c
}

// Open implements Opener.
func (d *definition[C]) Open(_ context.Context, env sdk.Env, raw map[string]any) (Opened, error) {
	o := &opened[C]{definition: d, env: env}
	if err := sdk.Decode(raw, nil, &o.cfg); err != nil {
		return nil, err
	}
	return o, nil
}

// CheckServer implements ServerChecker.
func (d *definition[C]) CheckServer(raw map[string]any) error {
	var c C
	if err := sdk.Decode(raw, nil, &c); err != nil || d.f.Check == nil {
		return err
	}
	err := d.f.Check(c)
	var many sdk.ConfigErrors
	if one := (*sdk.ConfigError)(nil); !errors.As(err, &many) && errors.As(err, &one) {
		many = sdk.ConfigErrors{one}
	}
	if len(many) == 0 {
		return d.wrap(err)
	}
	for i, e := range many {
		placed := *e
		if placed.Pos.IsZero() {
			placed.Pos = sdk.Locate(raw, e.Key)
		}
		many[i] = &placed
	}
	return many
}

func (d *definition[C]) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("transport %s: %w", d.d.Name, err)
}

// opened is a transport in this process.
type opened[C any] struct {
	*definition[C]
	env sdk.Env
	cfg C
}

func (o *opened[C]) lacks(half string) error {
	return &sdk.Error{Kind: sdk.Unsupported, Op: "transport " + o.d.Name, Text: "it has no " + half + " half"}
}

func (o *opened[C]) Listen(ctx context.Context) (net.Listener, error) {
	if o.f.Listen == nil {
		return nil, o.lacks("server")
	}
	ln, err := o.f.Listen(ctx, o.env, o.cfg)
	return ln, o.wrap(err)
}

func (o *opened[C]) Dial(ctx context.Context, to Endpoint, with Dial) (net.Conn, error) {
	if o.f.Dial == nil {
		return nil, o.lacks("client")
	}
	c, err := o.f.Dial(ctx, o.env, o.cfg, to, with)
	return c, o.wrap(err)
}

func (o *opened[C]) Probe(ctx context.Context) error {
	if o.f.Probe == nil {
		return nil
	}
	return o.wrap(o.f.Probe(ctx, o.env, o.cfg))
}

func (o *opened[C]) Close() error { return nil }

// NewKey implements KeyMaker.
func (o *opened[C]) NewKey() (private, public []byte, err error) {
	if o.f.NewKey == nil {
		return nil, nil, noKeys(o.d.Name)
	}
	return o.f.NewKey()
}

func noKeys(name string) error {
	return &sdk.Error{Kind: sdk.Unsupported, Op: "transport " + name, Text: "its devices have no keys"}
}

// Open opens a transport plugin with its raw configuration table (values as
// sdk.Decode takes them). env may be nil. Mistakes in the table are an
// sdk.ConfigErrors.
func Open(ctx context.Context, p sdk.Plugin, env sdk.Env, raw map[string]any) (Opened, error) {
	o, ok := p.(Opener)
	if !ok {
		return nil, &sdk.Error{Kind: sdk.Invalid, Op: "transport", Text: fmt.Sprintf("plugin %q is no transport", p.Name())}
	}
	if env == nil {
		env = sdk.NewEnv(sdk.EnvOptions{})
	}
	return o.Open(ctx, env, raw)
}

// DescriptorOf is a transport plugin's descriptor, zero for anything else.
func DescriptorOf(p sdk.Plugin) Descriptor {
	if o, ok := p.(Opener); ok {
		return o.Descriptor()
	}
	return Descriptor{}
}

// NewDialer is the client half of an opened transport under the name that
// endpoints call it by.
func NewDialer(name string, o Opened) Dialer { return dialer{name, o} }

type dialer struct {
	name string
	Opened
}

func (d dialer) Name() string { return d.name }

// NewKey implements KeyMaker where the transport does.
func (d dialer) NewKey() (private, public []byte, err error) {
	if k, ok := d.Opened.(KeyMaker); ok {
		return k.NewKey()
	}
	return nil, nil, noKeys(d.name)
}
