package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/link"
)

// Limits of the operator's requests.
const (
	// PageLimit is how many rows one list answer holds at most.
	PageLimit = 500
	// DefaultQuota and DefaultLinkLife are those of a link that names neither.
	DefaultQuota    = 1
	DefaultLinkLife = 7 * 24 * time.Hour
)

// Link is an invitation or pairing link as it was made, or an invitation as it
// is listed: then without Text, which is kept nowhere.
type Link struct {
	ID      string    `json:"id,omitempty"`
	Kind    LinkKind  `json:"kind"`
	Text    string    `json:"link,omitempty"`
	Quota   int       `json:"quota,omitempty"`
	Used    int       `json:"used"`
	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
}

// LinkRequest asks for a link.
type LinkRequest struct {
	Kind LinkKind `json:"kind"`
	// Quota is the number of accounts, TTLSeconds the life; zero is the default.
	Quota      int   `json:"quota,omitempty"`
	TTLSeconds int64 `json:"ttl_seconds,omitempty"`
	// Transports are those that an invitation names, at most link.MaxEndpoints; empty
	// means all, as far as there is room.
	Transports []string `json:"transports,omitempty"`
}

// LinkTerms are what a link is to hold. An address link has neither ID, secret nor end.
type LinkTerms struct {
	Kind       LinkKind
	ID         string
	Secret     [16]byte
	Expires    time.Time
	Transports []string // as in LinkRequest
}

// User is an account with its devices.
type User struct {
	ID      string    `json:"id"`
	Handle  string    `json:"handle"`
	Name    string    `json:"display_name,omitempty"`
	Created time.Time `json:"created"`
	Devices []Device  `json:"devices,omitempty"`
}

// Device is one device.
type Device struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	Name    string    `json:"name,omitempty"`
	Status  string    `json:"status"`
	Public  string    `json:"public_key"`
	Created time.Time `json:"created"`
}

// Page is a part of a list; Next is empty at its end.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

func (a *Admin) record(r *http.Request, action, subject string) {
	if a.opt.Record != nil {
		a.opt.Record(r.Context(), action, subject)
	}
}

func (a *Admin) absent() error { return problem(404, "not_found", "this relay does not offer it") }

func (a *Admin) status(r *http.Request, _ http.ResponseWriter) (any, error) {
	out := object{"version": a.opt.Version, "uptime_seconds": a.uptime(), "ready": true}
	if failed := a.check(r.Context()); len(failed) > 0 {
		checks := object{}
		for name, err := range failed {
			checks[name] = err.Error()
		}
		out["ready"], out["failed"] = false, checks
	}
	if a.opt.Status != nil {
		out["relay"] = a.opt.Status()
	}
	return out, nil
}

func (a *Admin) createLink(r *http.Request, w http.ResponseWriter) (any, error) {
	if a.opt.Link == nil {
		return nil, a.absent()
	}
	in := LinkRequest{Kind: InviteLink}
	if err := readJSON(w, r, &in); err != nil {
		return nil, err
	}
	if in.Kind == AddressLink {
		text, err := a.opt.Link(r.Context(), LinkTerms{Kind: AddressLink})
		return Link{Kind: AddressLink, Text: text}, err
	}
	if in.Kind != InviteLink {
		return nil, problem(400, "bad_request", "kind must be invite or address; pairing links belong to a user")
	}
	if len(in.Transports) > link.MaxEndpoints {
		return nil, problem(400, "bad_request", fmt.Sprintf("a link has room for %d transports", link.MaxEndpoints))
	}
	if in.Quota == 0 {
		in.Quota = DefaultQuota
	}
	if in.Quota < 1 || in.Quota > account.MaxInviteQuota {
		return nil, problem(400, "bad_request", fmt.Sprintf("quota must be 1 to %d", account.MaxInviteQuota))
	}
	ttl, err := life(in.TTLSeconds, DefaultLinkLife)
	if err != nil {
		return nil, err
	}
	secret, id, err := a.opt.Accounts.CreateInvite(r.Context(), in.Quota, ttl)
	if err != nil {
		return nil, err
	}
	now := a.opt.Clock().UTC()
	text, err := a.opt.Link(r.Context(), LinkTerms{Kind: InviteLink, ID: id, Secret: secret, Expires: now.Add(ttl), Transports: in.Transports})
	if err != nil { // nobody can hold it
		return nil, errors.Join(err, a.opt.Accounts.RevokeInvite(r.Context(), id))
	}
	a.record(r, "link.create", id)
	return Link{ID: id, Kind: InviteLink, Text: text, Quota: in.Quota, Created: now, Expires: now.Add(ttl)}, nil
}

// life turns seconds into a duration of at most 366 days.
func life(s int64, def time.Duration) (time.Duration, error) {
	switch {
	case s == 0:
		return def, nil
	case s < 0 || s > 366*86400:
		return 0, problem(400, "bad_request", "ttl_seconds must be 1 to 31622400")
	}
	return time.Duration(s) * time.Second, nil
}

func (a *Admin) listLinks(r *http.Request, _ http.ResponseWriter) (any, error) {
	after, limit, err := page(r)
	if err != nil {
		return nil, err
	}
	list, err := a.opt.Accounts.Invites(r.Context(), after, limit)
	if err != nil {
		return nil, err
	}
	p := Page[Link]{Items: make([]Link, len(list))}
	for i, v := range list {
		p.Items[i] = Link{ID: v.ID, Kind: InviteLink, Quota: v.Quota, Used: v.Used, Created: v.Created.UTC(), Expires: v.Expires.UTC()}
	}
	if len(list) == limit {
		p.Next = list[limit-1].ID
	}
	return p, nil
}

func page(r *http.Request) (after string, limit int, err error) {
	q := r.URL.Query()
	limit = 100
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > PageLimit {
			return "", 0, problem(400, "bad_request", "limit must be 1 to 500")
		}
	}
	return q.Get("after"), limit, nil
}

func (a *Admin) revokeLink(r *http.Request, _ http.ResponseWriter) (any, error) {
	id := r.PathValue("id")
	if err := a.opt.Accounts.RevokeInvite(r.Context(), id); err != nil {
		return nil, absentOr(err, "no live invitation with the id %q; 'commucat link list' shows them", id)
	}
	a.record(r, "link.revoke", id)
	return object{"id": id, "status": "revoked"}, nil
}

func (a *Admin) listUsers(r *http.Request, _ http.ResponseWriter) (any, error) {
	after, limit, err := page(r)
	if err != nil {
		return nil, err
	}
	list, err := a.opt.Accounts.Users(r.Context(), after, limit)
	if err != nil {
		return nil, err
	}
	p := Page[User]{Items: make([]User, len(list))}
	for i, u := range list {
		p.Items[i] = userOf(u)
	}
	if len(list) == limit {
		p.Next = list[limit-1].ID
	}
	return p, nil
}

func userOf(u account.User) User {
	return User{ID: u.ID, Handle: u.Handle, Name: u.DisplayName, Created: u.Created.UTC()}
}

func deviceOf(d account.Device) Device {
	o := deviceObject(d)
	return Device{ID: d.ID, User: d.User, Name: d.Name, Status: string(d.Status), Public: o["public_key"].(string), Created: d.Created.UTC()}
}

// find takes an id or a handle.
func (a *Admin) find(r *http.Request) (account.User, error) {
	name := r.PathValue("name")
	u, err := a.opt.Accounts.User(r.Context(), name)
	if errors.Is(err, account.ErrNotFound) {
		u, err = a.opt.Accounts.UserByHandle(r.Context(), name)
	}
	return u, absentOr(err, "no account with the id or handle %q; 'commucat user list' shows them", name)
}

// absentOr says what is not there and how to find what is.
func absentOr(err error, format, name string) error {
	if !errors.Is(err, account.ErrNotFound) {
		return err
	}
	const most = 100 // of a name that anybody may have typed
	return problem(404, "not_found", "there is "+fmt.Sprintf(format, name[:min(len(name), most)]))
}

const noDevice = "no device with the id %q; 'commucat device list' shows them"

func (a *Admin) showUser(r *http.Request, _ http.ResponseWriter) (any, error) {
	u, err := a.find(r)
	if err != nil {
		return nil, err
	}
	devices, err := a.opt.Accounts.Devices(r.Context(), u.ID)
	if err != nil {
		return nil, err
	}
	out := userOf(u)
	for _, d := range devices {
		out.Devices = append(out.Devices, deviceOf(d))
	}
	return out, nil
}

func (a *Admin) pairUser(r *http.Request, w http.ResponseWriter) (any, error) {
	if a.opt.Codes == nil || a.opt.Link == nil {
		return nil, a.absent()
	}
	var in LinkRequest
	if err := readJSON(w, r, &in); err != nil {
		return nil, err
	}
	ttl, err := life(in.TTLSeconds, 0)
	if err != nil {
		return nil, err
	}
	u, err := a.find(r)
	if err != nil {
		return nil, err
	}
	code, err := a.opt.Codes.Create(r.Context(), u.ID, "", ttl)
	if err != nil {
		return nil, err
	}
	text, err := a.opt.Link(r.Context(), LinkTerms{Kind: PairingLink, ID: code.ID, Secret: code.Secret, Expires: code.Expires})
	if err != nil { // nobody can hold it
		return nil, errors.Join(err, a.opt.Codes.Revoke(r.Context(), code.ID))
	}
	a.record(r, "pair.create", u.ID)
	return Link{ID: code.ID, Kind: PairingLink, Text: text, Quota: 1, Created: code.Issued, Expires: code.Expires}, nil
}

// revokePairing ends a pairing link; one that is gone already is no mistake.
func (a *Admin) revokePairing(r *http.Request, _ http.ResponseWriter) (any, error) {
	if a.opt.Codes == nil {
		return nil, a.absent()
	}
	id := r.PathValue("id")
	if err := a.opt.Codes.Revoke(r.Context(), id); err != nil {
		return nil, err
	}
	a.record(r, "pair.revoke", id)
	return object{"id": id, "status": "revoked"}, nil
}

func (a *Admin) showDevice(r *http.Request, _ http.ResponseWriter) (any, error) {
	id := r.PathValue("id")
	d, err := a.opt.Accounts.Device(r.Context(), id)
	if err != nil {
		return nil, absentOr(err, noDevice, id)
	}
	return deviceOf(d), nil
}

func (a *Admin) revokeDevice(r *http.Request, _ http.ResponseWriter) (any, error) {
	id := r.PathValue("id")
	if err := a.opt.Accounts.RevokeDevice(r.Context(), "", id); err != nil {
		return nil, absentOr(err, noDevice, id)
	}
	if a.opt.Revoked != nil {
		a.opt.Revoked(id)
	}
	a.record(r, "device.revoke", id)
	return object{"id": id, "status": "revoked"}, nil
}

// TransportKeyRequest sets a key of a device for a transport.
type TransportKeyRequest struct {
	Public []byte `json:"public"`
}

// TransportEndpoint is where a key is good.
type TransportEndpoint struct {
	Transport string            `json:"transport"`
	Host      string            `json:"host"`
	Port      uint16            `json:"port"`
	Params    map[string]string `json:"params,omitempty"`
}

func (a *Admin) setTransportKey(r *http.Request, w http.ResponseWriter) (any, error) {
	if a.opt.TransportKey == nil {
		return nil, a.absent()
	}
	var in TransportKeyRequest
	if err := readJSON(w, r, &in); err != nil {
		return nil, err
	}
	id, name := r.PathValue("id"), r.PathValue("transport")
	e, err := a.opt.TransportKey(r.Context(), id, name, in.Public)
	switch sdk.KindOf(err) {
	case sdk.Unavailable, sdk.Unsupported, sdk.Conflict, sdk.Full:
		return nil, problem(409, "key_refused", err.Error())
	case sdk.Invalid:
		return nil, problem(400, "invalid", err.Error())
	}
	if errors.Is(err, sdk.NotFound) {
		return nil, absentOr(account.ErrNotFound, noDevice, id)
	}
	if err != nil {
		return nil, err
	}
	a.record(r, "device.key", id)
	return TransportEndpoint{e.Transport, e.Host, e.Port, e.Values()}, nil
}

func (a *Admin) keys(*http.Request, http.ResponseWriter) (any, error) {
	if a.opt.Keys == nil {
		return nil, a.absent()
	}
	return a.opt.Keys(), nil
}

func (a *Admin) rotateKeys(r *http.Request, _ http.ResponseWriter) (any, error) {
	if a.opt.RotateKeys == nil {
		return nil, a.absent()
	}
	if err := a.opt.RotateKeys(r.Context()); errors.Is(err, sdk.Conflict) {
		return nil, problem(409, "keys_in_grace", err.Error())
	} else if err != nil {
		return nil, err
	}
	a.record(r, "keys.rotate", "noise")
	return a.keys(r, nil)
}

func (a *Admin) reload(r *http.Request, _ http.ResponseWriter) (any, error) {
	if a.opt.Reload == nil {
		return nil, a.absent()
	}
	if err := a.opt.Reload(r.Context()); err != nil {
		return nil, problem(409, "reload_failed", err.Error())
	}
	a.record(r, "config.reload", "")
	return object{"status": "reloaded"}, nil
}

func (a *Admin) plugins(*http.Request, http.ResponseWriter) (any, error) {
	if a.opt.Plugins == nil {
		return nil, a.absent()
	}
	return object{"items": a.opt.Plugins()}, nil
}

func (a *Admin) upgradePlugin(r *http.Request, _ http.ResponseWriter) (any, error) {
	if a.opt.UpgradePlugin == nil {
		return nil, a.absent()
	}
	name := r.PathValue("name")
	if err := a.opt.UpgradePlugin(r.Context(), name); err != nil {
		return nil, problem(409, "upgrade_failed", err.Error())
	}
	a.record(r, "plugin.upgrade", name)
	return object{"name": name, "status": "upgraded"}, nil
}

func (a *Admin) probeTransport(r *http.Request, _ http.ResponseWriter) (any, error) {
	if a.opt.ProbeTransport == nil {
		return nil, a.absent()
	}
	name := r.PathValue("name")
	if err := a.opt.ProbeTransport(r.Context(), name); err != nil {
		return nil, problem(409, "probe_failed", err.Error())
	}
	return object{"name": name, "status": "ok"}, nil
}
