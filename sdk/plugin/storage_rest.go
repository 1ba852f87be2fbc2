package plugin

import (
	"time"

	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

// directory runs a call of Directory.
func (w *worker) directory(c *call) error {
	d, now := w.store.Directory, wire.ToTime(c.parts[0].Now)
	switch r := c.parts[0].Call.(type) {
	case *wirepb.StorageRequest_Get:
		var keys []storage.Key
		for _, p := range c.parts {
			keys = wire.ToKeys(keys, p.GetGet())
		}
		out, err := d.Get(c.ctx, now, keys)
		if err == nil {
			w.records(c, out)
		}
		return err
	case *wirepb.StorageRequest_List:
		of := storage.Range{Kind: string(r.List.Kind), Prefix: string(r.List.Prefix), After: string(r.List.After), Limit: int(r.List.Limit)}
		out, err := d.List(c.ctx, now, of)
		if err == nil {
			w.records(c, out)
		}
		return err
	case *wirepb.StorageRequest_Commit:
		var writes []storage.Write
		for _, p := range c.parts {
			for _, one := range p.GetCommit().GetWrites() {
				writes = append(writes, wire.ToWrite(one))
			}
		}
		if err := d.Commit(c.ctx, now, writes); err != nil {
			return err
		}
	case *wirepb.StorageRequest_PurgeRecords:
		n, err := d.Purge(c.ctx, now, int(r.PurgeRecords.Limit))
		if err == nil {
			w.numbers(c, uint64(n))
		}
		return err
	}
	w.reply(c, &wirepb.StorageReply{}, false)
	return nil
}

// records answers records, in parts.
func (w *worker) records(c *call, records []storage.Record) {
	for {
		part := &wirepb.Records{}
		n, size := 0, 0
		for n < len(records) && (n == 0 || size+len(records[n].Value) <= wire.PartBytes) {
			part.Records = append(part.Records, wire.FromRecord(&records[n]))
			size += len(records[n].Value) + len(records[n].ID) + 64
			n++
		}
		records = records[n:]
		w.reply(c, &wirepb.StorageReply{Answer: &wirepb.StorageReply_Records{Records: part}}, len(records) > 0)
		if len(records) == 0 {
			return
		}
	}
}

// volatile runs a call of the volatile half.
func (w *worker) volatile(c *call) error {
	s := w.store
	switch c.parts[0].Call.(type) {
	case *wirepb.StorageRequest_Claim, *wirepb.StorageRequest_Renew, *wirepb.StorageRequest_Lookup:
		if s.Routes == nil {
			return errNotOffered
		}
		return w.routes(c)
	case *wirepb.StorageRequest_Announce, *wirepb.StorageRequest_Beats:
		if s.Presence == nil {
			return errNotOffered
		}
		return w.presence(c)
	case *wirepb.StorageRequest_CachePut, *wirepb.StorageRequest_CacheGet, *wirepb.StorageRequest_CacheTake, *wirepb.StorageRequest_CacheDelete:
		if s.Cache == nil {
			return errNotOffered
		}
		return w.cache(c)
	}
	now := wire.ToTime(c.parts[0].Now)
	switch r := c.parts[0].Call.(type) {
	case *wirepb.StorageRequest_Take:
		if s.Limiter == nil {
			return errNotOffered
		}
		rate := storage.Rate{Burst: r.Take.Burst, Per: time.Duration(r.Take.Per)}
		wait, err := s.Limiter.Take(c.ctx, now, string(r.Take.Key), rate, r.Take.Tokens)
		if err == nil {
			w.numbers(c, uint64(wait))
		}
		return err
	case *wirepb.StorageRequest_Publish:
		if s.Bus == nil {
			return errNotOffered
		}
		var messages [][]byte
		for _, p := range c.parts {
			messages = append(messages, p.GetPublish().GetMessages()...)
		}
		if err := s.Bus.Publish(c.ctx, string(r.Publish.Node), messages); err != nil {
			return err
		}
		w.reply(c, &wirepb.StorageReply{}, false)
		return nil
	}
	return errCall
}

func (w *worker) routes(c *call) error {
	s, now := w.store.Routes, wire.ToTime(c.parts[0].Now)
	switch c.parts[0].Call.(type) {
	case *wirepb.StorageRequest_Claim:
		var claims []storage.Claim
		for _, p := range c.parts {
			for _, one := range p.GetClaim().GetClaims() {
				claims = append(claims, storage.Claim{
					Device: string(one.Device), Node: string(one.Node), Session: string(one.Session), TTL: time.Duration(one.Ttl),
				})
			}
		}
		fences, err := s.Claim(c.ctx, now, claims)
		if err == nil {
			w.numbers(c, fences...)
		}
		return err
	case *wirepb.StorageRequest_Renew:
		var renewals []storage.Renewal
		for _, p := range c.parts {
			for _, one := range p.GetRenew().GetRenewals() {
				renewals = append(renewals, storage.Renewal{
					Device: string(one.Device), Session: string(one.Session), Node: string(one.Node), Fence: one.Fence, TTL: time.Duration(one.Ttl),
				})
			}
		}
		held, err := s.Renew(c.ctx, now, renewals)
		if err != nil {
			return err
		}
		n := make([]uint64, len(held))
		for i, h := range held {
			if h {
				n[i] = 1
			}
		}
		w.numbers(c, n...)
		return nil
	}
	found, err := s.Lookup(c.ctx, now, c.names((*wirepb.StorageRequest).GetLookup))
	if err != nil {
		return err
	}
	out := &wirepb.Routes{}
	for _, r := range found {
		out.Routes = append(out.Routes, &wirepb.Route{Device: []byte(r.Device), Node: []byte(r.Node), Session: []byte(r.Session), Fence: r.Fence})
	}
	w.reply(c, &wirepb.StorageReply{Answer: &wirepb.StorageReply_Routes{Routes: out}}, false)
	return nil
}

func (w *worker) presence(c *call) error {
	s, now := w.store.Presence, wire.ToTime(c.parts[0].Now)
	if _, ok := c.parts[0].Call.(*wirepb.StorageRequest_Announce); ok {
		var beats []storage.Beat
		for _, p := range c.parts {
			for _, b := range p.GetAnnounce().GetBeats() {
				beats = append(beats, wire.ToBeat(b))
			}
		}
		if err := s.Announce(c.ctx, now, beats); err != nil {
			return err
		}
		w.reply(c, &wirepb.StorageReply{}, false)
		return nil
	}
	found, err := s.Beats(c.ctx, now, c.names((*wirepb.StorageRequest).GetBeats))
	if err != nil {
		return err
	}
	for {
		part := &wirepb.Beats{}
		n, size := 0, 0
		for n < len(found) && size <= wire.PartBytes {
			part.Beats = append(part.Beats, wire.FromBeat(&found[n]))
			size += len(found[n].User) + 512
			n++
		}
		found = found[n:]
		w.reply(c, &wirepb.StorageReply{Answer: &wirepb.StorageReply_Beats{Beats: part}}, len(found) > 0)
		if len(found) == 0 {
			return nil
		}
	}
}

func (w *worker) cache(c *call) error {
	s, now := w.store.Cache, wire.ToTime(c.parts[0].Now)
	switch r := c.parts[0].Call.(type) {
	case *wirepb.StorageRequest_CachePut:
		value := r.CachePut.Value
		if value == nil {
			value = []byte{}
		}
		if err := s.Put(c.ctx, now, string(r.CachePut.Key), value, time.Duration(r.CachePut.Ttl)); err != nil {
			return err
		}
	case *wirepb.StorageRequest_CacheGet, *wirepb.StorageRequest_CacheTake:
		get, of := s.Get, (*wirepb.StorageRequest).GetCacheGet
		if _, ok := r.(*wirepb.StorageRequest_CacheTake); ok {
			get, of = s.Take, (*wirepb.StorageRequest).GetCacheTake
		}
		names := c.names(of)
		if len(names) != 1 {
			return errCall
		}
		value, err := get(c.ctx, now, names[0])
		if err == nil {
			w.values(c, [][]byte{value})
		}
		return err
	case *wirepb.StorageRequest_CacheDelete:
		if err := s.Delete(c.ctx, c.names((*wirepb.StorageRequest).GetCacheDelete)...); err != nil {
			return err
		}
	}
	w.reply(c, &wirepb.StorageReply{}, false)
	return nil
}
