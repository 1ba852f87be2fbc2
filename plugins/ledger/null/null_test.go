package null_test

import (
	"testing"

	"github.com/commucat/commucat/plugins/ledger/null"
	"github.com/commucat/commucat/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Ledger(t, null.Plugin, plugintest.LedgerOptions{})
}
