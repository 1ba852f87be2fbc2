package ccp

// Roles of group members.
const (
	RoleOwner  = "owner"
	RoleAdmin  = "admin"
	RoleMember = "member"
)

// MaxMembers bounds the members that a Join or GroupCreate may name.
const MaxMembers = 1024

// Join is the payload of a Join frame (ccp1.md 6.1). Keys of the wrong type count
// as absent, as do members that are no strings.
type Join struct {
	Relay   bool
	Members []string
	// GroupID is "" when absent.
	GroupID string
}

// ParseJoin reads the payload; it fails only if that is no JSON object or names
// more than MaxMembers.
func ParseJoin(b []byte) (Join, error) {
	r, err := readObject(b, "", MaxControl, "group_id", "members", "relay")
	if err != nil {
		return Join{}, err
	}
	var j Join
	j.Relay, _ = r.raw("relay").Bool()
	j.GroupID, _ = r.raw("group_id").Text()
	j.Members = r.members("members")
	return j, r.err
}

// Marshal writes the payload, keys sorted.
func (j Join) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.optText("group_id", j.GroupID)
	w.key("members").texts(j.Members)
	w.key("relay").bool(j.Relay)
	return w.close('}')
}

func (r *reader) members(name string) []string {
	var list []string
	for v := range r.raw(name).Elements() {
		s, ok := v.Text()
		switch {
		case !ok:
			continue
		case len(list) == MaxMembers:
			r.fail(name, "too many members")
			return nil
		}
		list = append(list, s)
	}
	return list
}

// GroupCreate is the payload of a GroupCreate frame (ccp1.md 6.3).
type GroupCreate struct {
	// GroupID is "" when the relay shall draw one.
	GroupID string
	// Relay is true unless the payload says otherwise.
	Relay   bool
	Members []string
	// Roles are by device; roles other than owner and admin read as member.
	Roles map[string]string
}

// ParseGroupCreate reads the payload, as tolerant as ParseJoin.
func ParseGroupCreate(b []byte) (GroupCreate, error) {
	r, err := readObject(b, "", MaxControl, "group_id", "members", "relay", "roles")
	if err != nil {
		return GroupCreate{}, err
	}
	g := GroupCreate{Relay: true, Members: r.members("members")}
	g.GroupID, _ = r.raw("group_id").Text()
	if relay, ok := r.raw("relay").Bool(); ok {
		g.Relay = relay
	}
	for device, v := range r.raw("roles").Members() {
		if g.Roles == nil {
			g.Roles = make(map[string]string)
		}
		if len(g.Roles) == MaxMembers {
			r.fail("roles", "too many members")
			break
		}
		role, _ := v.Text()
		g.Roles[device] = normalRole(role)
	}
	return g, r.err
}

func normalRole(role string) string {
	if role == RoleOwner || role == RoleAdmin {
		return role
	}
	return RoleMember
}

// GroupInvite is the payload of a GroupInvite frame (ccp1.md 6.3).
type GroupInvite struct {
	GroupID string
	Device  string
	// Role is admin or member: owner is lowered to admin.
	Role string
}

// ParseGroupInvite reads the payload; group_id and device are required.
func ParseGroupInvite(b []byte) (GroupInvite, error) {
	r, err := readObject(b, "", MaxControl, "device", "group_id", "role")
	if err != nil {
		return GroupInvite{}, err
	}
	g := GroupInvite{GroupID: r.text("group_id", required), Device: r.text("device", required)}
	role, _ := r.raw("role").Text()
	if g.Role = normalRole(role); g.Role == RoleOwner {
		g.Role = RoleAdmin
	}
	if r.err != nil {
		return GroupInvite{}, r.err
	}
	return g, nil
}

// StateOnline is the presence of a connected device that says nothing else.
const StateOnline = "online"

// MaxState is the longest presence state, in bytes.
const MaxState = 64

// ParsePresence reads the state of a Presence frame from a client (ccp1.md 6.5):
// StateOnline if there is none.
func ParsePresence(b []byte) (state string, err error) {
	r, err := readObject(b, "", MaxControl, "state")
	if err != nil {
		return "", err
	}
	state, ok := r.raw("state").Text()
	switch {
	case !ok:
		return StateOnline, nil
	case len(state) > MaxState:
		return "", badField("state", "longer than 64 bytes")
	}
	return state, nil
}
