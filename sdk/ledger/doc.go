// Package ledger is the plugin kind that keeps the audit chain: records of security
// and operator events, each of which contains the hash of the one before.
//
// The core makes and chains the records; a ledger keeps them, in order and without
// gaps, and gives them back. It need not be trusted for their content: whoever reads
// them checks the chain again (Chain, Verify), and a signed Checkpoint kept elsewhere
// shows a chain that was cut off or replaced as a whole.
//
// A ledger is written by implementing Ledger and naming it with Define:
//
//	var Plugin = ledger.Define(ledger.Descriptor{
//		Name: "mine", Version: "1.0.0", Summary: "keeps records in my database",
//	}, func(ctx context.Context, env sdk.Env, c Config) (ledger.Ledger, error) { … })
//
// plugintest.Ledger is its test.
package ledger
