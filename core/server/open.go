package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/keyring"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pairing"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/core/session"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/storage"
)

func (s *Server) openData(context.Context) (err error) {
	if s.data, err = openData(s.opt.Data, s.opt.Rand); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.data.close() })
	return nil
}

// minimum is what every peer must have, except on the reference's connect path.
const minimum = ccp.ProofBinding | ccp.Records | ccp.Ack

func (s *Server) openKeys(context.Context) error {
	opt := keyring.Options{
		Domain: string(s.cfg.Server.Domain), Rotate: s.cfg.Noise.Rotate, Grace: s.cfg.Noise.Grace, Pinned: s.cfg.Compat.PinnedKeys,
		Features: ccp.AllCapabilities, Min: minimum, Clock: s.opt.Clock, Rand: s.opt.Rand,
	}
	if s.cfg.Compat.ConnectPath {
		opt.Min = 0
	}
	ring, changes, err := keyring.Open(s.data.path(keysDir), opt)
	if err != nil {
		return err
	}
	s.ring = ring
	// The ledger does not stand yet: it learns of keys made at the first start
	// once it does.
	s.onOpenAudit = func() { s.recordKeys(changes) }
	return nil
}

func (s *Server) recordKeys(changes []keyring.Change) {
	for _, c := range changes {
		if c.What == "noise" && c.Version > 1 {
			s.metrics.Inc(metrics.SecretRotationsNoise)
		}
		fingerprint := ""
		if c.Public != [32]byte{} {
			fingerprint = fmt.Sprintf("%x", c.Public[:8])
		}
		s.record(audit.KeyRotated(c.What, c.Version, fingerprint))
		s.log.Info("key made", "key", c.What, "version", c.Version)
	}
}

// env is what the server lends to a compiled-in plugin.
func (s *Server) env(kind, name string) (sdk.Env, error) {
	dir := s.data.path(stateDir, kind+"-"+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder %s cannot be written: %w", s.data.dir, reason(err))
	}
	return sdk.NewEnv(sdk.EnvOptions{
		Log: s.log.With("plugin", name), State: dir,
		Degraded: func(err error) {
			if err == nil {
				s.degraded.Delete(name)
				return
			}
			s.degraded.Store(name, err)
		},
	}), nil
}

// openStorage opens the durable and the volatile half, which may come from one
// plugin or two.
func (s *Server) openStorage(ctx context.Context) error {
	durable, traits, err := s.storage(ctx, s.cfg.Storage.Backend)
	if err != nil {
		return err
	}
	s.store, s.traits = durable, traits
	if traits.Source {
		return fmt.Errorf("storage.backend = %q can only be imported from, by 'commucat migrate'", s.cfg.Storage.Backend)
	}
	if durable.Queues == nil || durable.Directory == nil {
		return fmt.Errorf("storage.backend = %q keeps no messages and accounts; it serves as storage.volatile only", s.cfg.Storage.Backend)
	}
	if err := s.whole(ctx); err != nil {
		return err
	}
	if s.cfg.Storage.Volatile == s.cfg.Storage.Backend {
		return nil
	}
	v, _, err := s.storage(ctx, s.cfg.Storage.Volatile)
	if err != nil {
		return err
	}
	s.store.Routes, s.store.Presence, s.store.Cache, s.store.Limiter, s.store.Bus = v.Routes, v.Presence, v.Cache, v.Limiter, v.Bus
	return nil
}

func (s *Server) storage(ctx context.Context, name string) (storage.Store, storage.Traits, error) {
	p := s.opt.plugin(sdk.Storage, name)
	if p == nil {
		store, traits, err := s.host.Storage(ctx, s.pluginSpec(s.cfg, sdk.Storage, name, name))
		if err == nil {
			s.onClose(store.Close)
		}
		return store, traits, err
	}
	env, err := s.env("storage", name)
	if err != nil {
		return storage.Store{}, storage.Traits{}, err
	}
	raw, err := sdk.Resolve(p.Config(), s.cfg.Keys(sdk.Storage, name), s.cfg.Files(s.opt.Environment))
	if err != nil {
		return storage.Store{}, storage.Traits{}, err
	}
	store, err := storage.Open(ctx, p, env, raw)
	if err != nil {
		return storage.Store{}, storage.Traits{}, err // it names the plugin
	}
	if store.Close != nil {
		s.onClose(store.Close)
	}
	return store, storage.TraitsOf(p), nil
}

func (s *Server) openAudit(ctx context.Context) error {
	var sinks []audit.Sink
	closeAll := func() {
		for _, k := range sinks {
			k.Ledger.Close(ctx)
		}
	}
	for _, name := range s.cfg.Ledger.Backends {
		l, forgets, err := s.ledger(ctx, name)
		if err != nil {
			closeAll()
			return err
		}
		sinks = append(sinks, audit.Sink{Name: name, Ledger: l, Forgets: forgets})
	}
	rec, err := audit.Open(ctx, audit.Options{
		Dir: s.data.path(auditDir), DigestKey: s.ring.AuditKey(), Domain: string(s.cfg.Server.Domain), Key: s.ring.AuditSigner(),
		Sinks: sinks, Clock: s.opt.Clock, Log: s.log,
		Behind: func(ledger string, records uint64) { s.metrics.Label(metrics.LedgerBehind, ledger, float64(records)) },
	})
	if err != nil {
		closeAll()
		return err
	}
	s.audit = rec
	s.onClose(rec.Close)
	s.onOpenAudit()
	return nil
}

// ledger opens one ledger plugin and says whether it forgets records.
func (s *Server) ledger(ctx context.Context, name string) (ledger.Ledger, bool, error) {
	p := s.opt.plugin(sdk.Ledger, name)
	if p == nil {
		return s.host.Ledger(ctx, s.pluginSpec(s.cfg, sdk.Ledger, name, name))
	}
	env, err := s.env("ledger", name)
	if err != nil {
		return nil, false, err
	}
	raw, err := sdk.Resolve(p.Config(), s.cfg.Keys(sdk.Ledger, name), s.cfg.Files(s.opt.Environment))
	if err != nil {
		return nil, false, err
	}
	l, err := ledger.Open(ctx, p, env, raw)
	if err != nil {
		return nil, false, err // it names the plugin
	}
	return l, ledger.Forgets(p), nil
}

func (s *Server) openAccounts(context.Context) error {
	s.accounts = account.New(s.store.Directory, account.Options{
		CacheAge: s.cacheAge(),
		Domain:   string(s.cfg.Server.Domain), Clock: s.opt.Clock, Rand: s.opt.Rand,
		CA:           func() identity.CA { return s.ring.CA() },
		Registration: account.Registration(s.cfg.Relay.Registration), MaxDevices: int(s.cfg.Limits.Devices),
	})
	s.codes = pairing.New(pairing.Options{
		Accounts: s.accounts, Directory: s.store.Directory, Limiter: s.store.Limiter, ShortCodes: s.cfg.Compat.PublicAPI,
		Life: s.cfg.Pairing.TTL, Tries: int(s.cfg.Pairing.Tries), PerPrefix: int(s.cfg.Pairing.PerPrefix),
		PerMinute: int(s.cfg.Pairing.PerMinute), Clock: s.opt.Clock, Rand: s.opt.Rand,
	})
	return nil
}

func (s *Server) openRelay(context.Context) (err error) {
	if s.node, err = s.nodeName(); err != nil {
		return err
	}
	s.hub, err = relay.New(relay.Options{
		Store: s.store, Traits: s.traits, Node: s.node, Told: s.told, Health: s.nodesHealth, Accounts: directory{s.accounts}, Friends: s.accounts.IsFriend,
		StorageKey: s.ring.StorageKey(), Contact: relay.Contact(s.cfg.Relay.ContactPolicy()),
		Limits: relay.Limits{
			NewContacts: int(s.cfg.Limits.NewContacts), RelayTTL: s.cfg.Limits.RelayTTL, PresenceTTL: s.cfg.Limits.PresenceTTL,
			Queue: storage.Quota{Messages: uint64(s.cfg.Limits.QueueMessages), Bytes: uint64(s.cfg.Limits.QueueBytes)},
		},
		Compat: relay.Compat{OpenChannels: s.cfg.Compat.OpenChannels}, Metrics: counts{s.metrics},
		Log: s.log, Clock: s.opt.Clock, Rand: s.opt.Rand,
	})
	if err != nil {
		return err
	}
	s.gate = s.newGate()
	s.ways.announce(s.cfg.Relay.Announce)
	s.sessions = session.New(session.Options{
		Accounts: s.accounts, Relay: session.Hub(s.hub), Cache: s.store.Cache, Keys: s.noiseKeys,
		DeviceCA:  func() [32]byte { return s.ring.CA().Public() },
		Catalogue: s.ring.Catalogue, Entry: s.newEntry, Keyed: s.keyed, Endpoints: s.keyedEndpoints, Ways: s.knownWays,
		Domain: string(s.cfg.Server.Domain), Prologue: []byte(s.cfg.Noise.Prologue), Offer: ccp.AllCapabilities, Min: minimum,
		ClearFrames: s.cfg.Compat.ClearFrames, Node: s.node, Gate: s.gate,
		Limits: session.Limits{
			Sessions: int(s.cfg.Limits.Sessions), Handshake: s.cfg.Limits.HandshakeTimeout, Keepalive: s.cfg.Server.Keepalive / 2, LargeFrames: int64(s.cfg.Limits.LargeFrames),
		},
		Source: source(s.cfg.Log.Addresses), Metrics: s.metrics, Log: s.log, Clock: s.opt.Clock, Rand: s.opt.Rand,
	})
	s.accounts.OnChange(s.changed)
	return nil
}

// changed follows every change of an account's devices: the audit chain, the live
// session, the queue, and the account's other devices.
func (s *Server) changed(c account.Change) {
	d := audit.Device{User: c.User, ID: c.Device, Public: c.Public}
	switch {
	case c.NewUser:
		s.record(audit.Registered(d, c.Via))
	case c.Kind == account.DeviceAdded:
		s.record(audit.DeviceAdded(d, c.Via))
	case c.Kind == account.DeviceRevoked:
		s.record(audit.DeviceRevoked(d, c.Via))
	case c.Kind == account.DeviceRotated:
		s.record(audit.DeviceRotated(d, c.Via))
		s.metrics.Inc(metrics.DeviceRotations)
	}
	s.tellNodes(notice{Change: &c})
	s.keysGone(c)
	if c.Kind == account.KeysChanged {
		return
	}
	s.hub.Changed(c.User)
	s.sessions.DeviceChanged(c) // before the transports are told, see keysGone
	if c.Kind == account.DeviceRevoked {
		ctx, cancel := context.WithTimeout(context.Background(), tellTime)
		defer cancel()
		if err := s.hub.Drop(ctx, c.User, c.Device); err != nil {
			s.log.Warn("the queue of a revoked device could not be dropped", "error", err)
		}
	}
	s.tellSoon(c)
}

// tellSoon tells the others what is owed to them. That waits for storage: not on the
// goroutine of a handshake.
func (s *Server) tellSoon(c account.Change) {
	if c.Owed != "" {
		s.telling.Go(func() { s.tellOthers(c) })
	}
}

// tellTime bounds the telling of one change.
const tellTime = 10 * time.Second

// tellOthers tells a change to the account's other devices and settles what is owed of
// it; whom it could not tell is told by tellOwed.
func (s *Server) tellOthers(c account.Change) {
	ctx, cancel := context.WithTimeout(context.Background(), tellTime)
	defer cancel()
	devices, err := s.accounts.Devices(ctx, c.User)
	if err == nil {
		var left []string
		for _, d := range devices {
			if d.ID == c.Device || d.Status != account.Active || c.To != nil && !slices.Contains(c.To, d.ID) {
				continue
			}
			if e := s.hub.NotifyOnce(ctx, d.ID, noticeID(c.Owed), ccp.TypeGroupEvent, 0, c.Event()); e != nil && !errors.Is(e, relay.ErrUnknown) {
				left, err = append(left, d.ID), errors.Join(err, e)
			}
		}
		settle, cancel := context.WithTimeout(context.Background(), tellTime)
		defer cancel()
		err = errors.Join(err, s.accounts.Settle(settle, c, left...))
	}
	if err != nil {
		s.log.Warn("the account's other devices could not be told yet", "change", string(c.Kind), "error", err)
	}
}

// noticeID is the id under which a device is told what it is owed, however often.
func noticeID(owed string) ccp.MessageID {
	sum := sha256.Sum256([]byte("commucat/notice/1\x00" + owed))
	return ccp.MessageID{Log: [8]byte(sum[:8]), Counter: 1}
}

// tellOwed tells what a crash, a stop or a storage that was away has left untold. One that
// cannot be told, to a device whose queue is full perhaps, keeps no other waiting.
func (s *Server) tellOwed(ctx context.Context) {
	owed, err := s.accounts.Owed(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("what devices have still to be told of their accounts could not be read", "error", err)
	}
	for _, c := range owed {
		if ctx.Err() != nil {
			return
		}
		s.tellOthers(c)
	}
}

// dataFile is a file's place below the data folder, for messages.
func (s *Server) dataFile(name string) string { return filepath.Join(s.data.dir, name) }
