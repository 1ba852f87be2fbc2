package redis_test

import (
	"strings"
	"testing"

	"github.com/commucat/commucat/plugins/storage/redis"
)

// TestAddressWithPassword: a URL in the place of an address is refused without showing
// the password in it; what is merely mistyped is shown.
func TestAddressWithPassword(t *testing.T) {
	for address, shown := range map[string]bool{"redis://:UrlSecret99@db/0": false, "redis:6379:1": true} {
		err := (&redis.Config{Address: []string{address}}).Check()
		if err == nil || strings.Contains(err.Error(), address) != shown || strings.Contains(err.Error(), "UrlSecret99") || !strings.Contains(err.Error(), "host:port") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
