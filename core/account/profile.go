package account

import (
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/commucat/commucat/sdk/storage"
)

// profile plans the update that display name and avatar hints ask for. Hints
// that break the rules are dropped.
func (s *Store) profile(p *plan, r *Request, user held[userRecord], _ time.Time) {
	name, avatar := cleanText(r.User.DisplayName, MaxDisplayName), cleanURL(r.User.AvatarURL)
	changed := false
	if name != "" && name != user.value.Display {
		user.value.Display, changed = name, true
	}
	if avatar != "" && avatar != user.value.Avatar {
		user.value.Avatar, changed = avatar, true
	}
	if changed {
		p.writes = append(p.writes, user.write(time.Time{}))
	}
}

// UpdateProfile changes display name and avatar; nil leaves one as it is, and an
// empty text removes it. Texts that break the rules are refused.
func (s *Store) UpdateProfile(ctx context.Context, user string, display, avatar *string) (User, error) {
	if display != nil && *display != "" && cleanText(*display, MaxDisplayName) == "" {
		return User{}, invalid("display name breaks the rules")
	}
	if avatar != nil && *avatar != "" && cleanURL(*avatar) == "" {
		return User{}, invalid("avatar URL breaks the rules")
	}
	for try := 0; ; try++ {
		h, err := load[userRecord](ctx, s, kindUser, user)
		if err != nil {
			return User{}, err
		}
		if !h.exists() {
			return User{}, ErrNotFound
		}
		if display != nil {
			h.value.Display = cleanText(*display, MaxDisplayName)
		}
		if avatar != nil {
			h.value.Avatar = cleanURL(*avatar)
		}
		err = s.dir.Commit(ctx, s.now(), []storage.Write{h.write(time.Time{})})
		if err == nil {
			return h.value.user(user), nil
		}
		if !isConflict(err) || try == commitTries {
			return User{}, err
		}
	}
}

// MaxFriends bounds a friend list, MaxAlias an alias in characters.
const (
	MaxFriends = 512
	MaxAlias   = 128
)

// Friend is one entry of a friend list.
type Friend struct {
	User  string `json:"user_id"`
	Alias string `json:"alias,omitempty"`
}

// Friends answers an account's list in its own order.
func (s *Store) Friends(ctx context.Context, user string) ([]Friend, error) {
	h, err := load[[]Friend](ctx, s, kindFriends, user)
	return h.value, err
}

// IsFriend says whether owner has peer on its list.
func (s *Store) IsFriend(ctx context.Context, owner, peer string) (bool, error) {
	list, err := s.Friends(ctx, owner)
	return slices.ContainsFunc(list, func(f Friend) bool { return f.User == peer }), err
}

// UpdateFriends changes a list by change, which may be called several times and
// returns the whole new list: at most 512 entries, each user once. An error of
// change ends the operation and is returned.
func (s *Store) UpdateFriends(ctx context.Context, user string, change func([]Friend) ([]Friend, error)) ([]Friend, error) {
	for try := 0; ; try++ {
		list, w, err := s.planFriends(ctx, user, change)
		if err != nil {
			return nil, err
		}
		err = s.dir.Commit(ctx, s.now(), []storage.Write{w})
		if err == nil {
			return list, nil
		}
		if !isConflict(err) || try == commitTries {
			return nil, err
		}
	}
}

func (s *Store) planFriends(ctx context.Context, user string, change func([]Friend) ([]Friend, error)) ([]Friend, storage.Write, error) {
	h, err := load[[]Friend](ctx, s, kindFriends, user)
	if err != nil {
		return nil, storage.Write{}, err
	}
	list, err := change(slices.Clone(h.value))
	if err != nil {
		return nil, storage.Write{}, err
	}
	if err := checkFriends(list); err != nil {
		return nil, storage.Write{}, err
	}
	h.value = list
	return list, h.write(time.Time{}), nil
}

func checkFriends(list []Friend) error {
	if len(list) > MaxFriends {
		return invalid("more than 512 friends")
	}
	seen := make(map[string]bool, len(list))
	for _, f := range list {
		switch {
		case f.User == "" || len(f.User) > 255 || !utf8.ValidString(f.User):
			return invalid("user id of a friend breaks the rules")
		case seen[f.User]:
			return invalid("friend named twice")
		case f.Alias != "" && cleanText(f.Alias, MaxAlias) != f.Alias:
			return invalid("alias breaks the rules")
		}
		seen[f.User] = true
	}
	return nil
}
