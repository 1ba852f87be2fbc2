package metrics

// Counter names an instrument that only grows.
type Counter uint8

// The counters. The first block keeps the names of the existing dashboards
// (docs: api-and-operations 10.1) with the meaning that the name promises.
const (
	FramesIngress Counter = iota
	FramesEgress
	RelayEnqueued
	SecurityNoise
	SecurityPQ
	SecurityFECPackets
	MultipathSessions
	ICEBindingRequests
	ICEBindingFailures
	CensorshipDeflections
	CallsTotal
	CallVoiceFrames
	CallVideoFrames
	TransportCandidates
	TransportPairs
	TransportKeepalive
	FederationOutboxEnqueued
	FederationOutboxDelivered
	FederationInboundProcessed
	FederationInboundRejected
	RateLimitHTTP
	RateLimitConnect
	SecretRotationsNoise
	SecretRotationsAdmin
	DeviceRotations

	BytesIngress
	BytesEgress
	MessagesAccepted
	MessagesDelivered
	MessagesRedelivered
	MessagesDuplicate
	MessagesExpired
	MessagesDropped
	MessagesMoved
	MediaDropped
	SlowReceivers
	SessionsReplaced
	SessionsResumed
	CommitRetries
	PairingAttempts
	PairingFailures
	CertificateReloads
	CertificateReloadFailures
	AcceptErrors
	DescriptorsRejected
	AuditRecords
	AuditFailures

	counterCount
)

type def struct{ name, help string }

var counterDefs = [counterCount]def{
	FramesIngress:              {"commucat_frames_ingress", "CCP-1 frames received from established sessions."},
	FramesEgress:               {"commucat_frames_egress", "CCP-1 frames written to established sessions."},
	RelayEnqueued:              {"commucat_relay_enqueued", "Rows stored for devices that were not connected to this node."},
	SecurityNoise:              {"commucat_security_noise", "Noise handshakes finished and verified."},
	SecurityPQ:                 {"commucat_security_pq", "Noise handshakes finished with the hybrid ML-KEM-768 key."},
	SecurityFECPackets:         {"commucat_security_fec_packets", "Forward error correction packets sent; 0 where no transport uses it."},
	MultipathSessions:          {"commucat_multipath_sessions", "Sessions that a device took up again over another transport."},
	ICEBindingRequests:         {"commucat_ice_binding_requests", "STUN binding requests received; 0, the relay answers none yet."},
	ICEBindingFailures:         {"commucat_ice_binding_failures", "STUN binding requests that were not answered with success; 0, the relay answers none yet."},
	CensorshipDeflections:      {"commucat_censorship_deflections", "Requests to a transport's path without a good entry token, answered by the cover site."},
	CallsTotal:                 {"commucat_calls_total", "Calls offered."},
	CallVoiceFrames:            {"commucat_call_voice_frames", "Voice frames relayed."},
	CallVideoFrames:            {"commucat_call_video_frames", "Video frames relayed."},
	TransportCandidates:        {"commucat_transport_candidates", "TransportUpdate frames that announced a candidate."},
	TransportPairs:             {"commucat_transport_pairs", "TransportUpdate frames that selected a pair."},
	TransportKeepalive:         {"commucat_transport_keepalive", "TransportUpdate frames that renewed consent."},
	FederationOutboxEnqueued:   {"commucat_federation_outbox_enqueued", "Federation events stored for delivery; 0, there is no federation yet."},
	FederationOutboxDelivered:  {"commucat_federation_outbox_delivered", "Federation events that a peer confirmed; 0, there is no federation yet."},
	FederationInboundProcessed: {"commucat_federation_inbound_processed", "Federation events accepted from peers; 0, there is no federation yet."},
	FederationInboundRejected:  {"commucat_federation_inbound_rejected", "Federation events refused; 0, there is no federation yet."},
	RateLimitHTTP:              {"commucat_rate_limit_http", "REST requests refused by a rate limit."},
	RateLimitConnect:           {"commucat_rate_limit_connect", "Connections refused by admission before authentication."},
	SecretRotationsNoise:       {"commucat_secret_rotations_noise", "New Noise static keys made."},
	SecretRotationsAdmin:       {"commucat_secret_rotations_admin", "New admin tokens set; 0, the operator puts another into its file."},
	DeviceRotations:            {"commucat_device_rotations", "Device keys replaced with the old key's signature."},

	BytesIngress:              {"commucat_bytes_ingress_total", "Bytes received on established sessions, before decryption."},
	BytesEgress:               {"commucat_bytes_egress_total", "Bytes written to established sessions, after encryption."},
	MessagesAccepted:          {"commucat_messages_accepted_total", "Messages acknowledged to their sender as done."},
	MessagesDelivered:         {"commucat_messages_delivered_total", "Messages handed to sessions (one for each recipient device)."},
	MessagesRedelivered:       {"commucat_messages_redelivered_total", "Of those, messages that an earlier connection had been given and that were not acknowledged."},
	MessagesDuplicate:         {"commucat_messages_duplicate_total", "Messages sent again by a client that were done already."},
	MessagesExpired:           {"commucat_messages_expired_total", "Rows that left a queue by expiry."},
	MessagesDropped:           {"commucat_messages_dropped_total", "Rows that left a queue because their device was revoked."},
	MessagesMoved:             {"commucat_messages_moved_total", "Rows moved behind the others because they seemed to crash their recipient."},
	MediaDropped:              {"commucat_media_dropped_total", "Voice and video frames dropped because a receiver was behind."},
	SlowReceivers:             {"commucat_slow_receivers_total", "Sessions closed because their receiver stayed behind."},
	SessionsReplaced:          {"commucat_sessions_replaced_total", "Sessions ended by a newer one of the same device."},
	SessionsResumed:           {"commucat_sessions_resumed_total", "Sessions taken up again with a resume token."},
	CommitRetries:             {"commucat_commit_retries_total", "Storage batches repeated after a passing failure."},
	PairingAttempts:           {"commucat_pairing_attempts_total", "Pairing codes presented."},
	PairingFailures:           {"commucat_pairing_failures_total", "Pairing codes refused."},
	CertificateReloads:        {"commucat_certificate_reloads_total", "TLS certificate files read anew after a change."},
	CertificateReloadFailures: {"commucat_certificate_reload_failures_total", "Changed TLS certificate files that could not be used; the old certificate stays."},
	AcceptErrors:              {"commucat_accept_errors_total", "Errors of accept on a public listener."},
	DescriptorsRejected:       {"commucat_descriptors_rejected_total", "Descriptors from plugins closed because they were not connected stream sockets."},
	AuditRecords:              {"commucat_audit_records_total", "Records appended to the ledger."},
	AuditFailures:             {"commucat_audit_failures_total", "Records that the ledger refused."},
}

// Gauge names an instrument that goes up and down.
type Gauge uint8

// The gauges; the first three keep inherited names.
const (
	ConnectionsActive Gauge = iota
	MultipathPaths
	CallsActive

	ConnectionsUnauthenticated
	UnauthenticatedBytes
	CommitPending
	KeyWorkWaiting
	KeyWorkRunning
	AdmissionPrefixes
	CertificateExpiry
	LargeFrameBytes

	gaugeCount
)

var gaugeDefs = [gaugeCount]def{
	ConnectionsActive:          {"commucat_connections_active", "Sessions past the handshake."},
	MultipathPaths:             {"commucat_multipath_paths", "Transports that carry at least one session."},
	CallsActive:                {"commucat_calls_active", "Calls going on."},
	ConnectionsUnauthenticated: {"commucat_connections_unauthenticated", "Connections that have not proved a device."},
	UnauthenticatedBytes:       {"commucat_unauthenticated_bytes", "Buffer bytes reserved by connections that have not proved a device."},
	CommitPending:              {"commucat_commit_pending", "Rows that wait for the group committer."},
	KeyWorkWaiting:             {"commucat_key_work_waiting", "Handshakes waiting for public-key work."},
	KeyWorkRunning:             {"commucat_key_work_running", "Handshakes in public-key work."},
	AdmissionPrefixes:          {"commucat_admission_prefixes", "Address prefixes that admission remembers."},
	CertificateExpiry:          {"commucat_certificate_expiry_timestamp_seconds", "Unix time at which the TLS certificate in use expires."},
	LargeFrameBytes:            {"commucat_large_frame_bytes", "Bytes reserved for frames over 1 MiB."},
}

// Histogram names a distribution.
type Histogram uint8

// The histograms. Names end in their unit.
const (
	HandshakeSeconds Histogram = iota
	AckSeconds
	DeliverySeconds
	CommitSeconds
	CommitBatch
	RequestSeconds
	FanOut
	WriteBatchBytes
	KeyWorkWaitSeconds

	histogramCount
)

type histDef struct {
	name, help string
	buckets    []float64
}

var (
	fast   = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	counts = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}
	sizes  = []float64{256, 1024, 4096, 16384, 65536, 262144, 1 << 20, 4 << 20, 16 << 20}
)

var histogramDefs = [histogramCount]histDef{
	HandshakeSeconds:   {"commucat_handshake_seconds", "From accept to an established session.", fast},
	AckSeconds:         {"commucat_ack_seconds", "From a message's arrival to its acknowledgement being queued.", fast},
	DeliverySeconds:    {"commucat_delivery_seconds", "From a message's arrival to its being stored and handed to a recipient who is connected to this node.", fast},
	CommitSeconds:      {"commucat_commit_seconds", "Duration of one storage batch, fsync included.", fast},
	CommitBatch:        {"commucat_commit_batch_rows", "Rows in one storage batch.", counts},
	RequestSeconds:     {"commucat_request_seconds", "Duration of REST requests.", fast},
	FanOut:             {"commucat_fan_out_devices", "Recipient devices of one message.", counts},
	WriteBatchBytes:    {"commucat_write_batch_bytes", "Bytes of one coalesced write to a session.", sizes},
	KeyWorkWaitSeconds: {"commucat_key_work_wait_seconds", "Time that handshakes waited for public-key work.", fast},
}

// Vec names a counter with one label.
type Vec uint8

// The labelled counters.
const (
	// Handshakes, label result: "established", "resumed", "refused", "timeout",
	// "malformed", "busy", or a wire error code.
	Handshakes Vec = iota
	// CoverHits, label reason: "request", "token", "busy", "withheld".
	CoverHits
	// AdmissionRefused, label reason: see core/admission.
	AdmissionRefused
	// AcceptedConnections, label transport.
	AcceptedConnections
	// MessagesRefused, label reason: a wire error code.
	MessagesRefused
	// Errors, label code: error frames sent to sessions.
	Errors
	// SessionsEnded, label reason.
	SessionsEnded
	// Requests, label class: "2xx" …, REST only.
	Requests
	// PluginRestarts, label plugin.
	PluginRestarts
	// PluginForeign, PluginTruncated and PluginLogDropped, label plugin: what its
	// processes sent that does not belong there.
	PluginForeign
	PluginTruncated
	PluginLogDropped

	vecCount
)

type vecDef struct{ name, help, label string }

var vecDefs = [vecCount]vecDef{
	Handshakes:          {"commucat_handshakes_total", "Handshakes by result.", "result"},
	CoverHits:           {"commucat_cover_hits_total", "Requests answered by the cover site, by reason.", "reason"},
	AdmissionRefused:    {"commucat_admission_refused_total", "Connections and work refused before authentication, by reason.", "reason"},
	AcceptedConnections: {"commucat_accepted_connections_total", "Connections handed to the session layer, by transport.", "transport"},
	MessagesRefused:     {"commucat_messages_refused_total", "Messages refused for good, by reason.", "reason"},
	Errors:              {"commucat_errors_total", "Error frames sent, by code.", "code"},
	SessionsEnded:       {"commucat_sessions_ended_total", "Sessions ended, by reason.", "reason"},
	Requests:            {"commucat_requests_total", "REST requests by status class.", "class"},
	PluginRestarts:      {"commucat_plugin_restarts_total", "Plugin processes started again after an end that was not asked for.", "plugin"},
	PluginForeign:       {"commucat_plugin_foreign_descriptors_total", "Descriptors from the plugin that were closed because they were no connected stream sockets.", "plugin"},
	PluginTruncated:     {"commucat_plugin_truncated_messages_total", "Hand-off messages of the plugin that arrived cut off.", "plugin"},
	PluginLogDropped:    {"commucat_plugin_log_dropped_total", "Lines of the plugin's log over its limit.", "plugin"},
}

// Labelled names a gauge with one label.
type Labelled uint8

// The labelled gauges.
const (
	// Sessions, label transport.
	Sessions Labelled = iota
	// TransportUp, label transport: 1 serving, 0 not.
	TransportUp
	// PluginUp, label plugin: 1 running, 0 not.
	PluginUp
	// PluginState, label plugin: 0 stopped, 1 starting, 2 running, 3 draining, 4
	// backoff, 5 parked.
	PluginState
	// LedgerBehind, label ledger: records in the spool that it has not taken; for "spool"
	// events that wait in memory for a disk that refuses them.
	LedgerBehind
	// PluginStreams, label plugin.
	PluginStreams

	labelledCount
)

var labelledDefs = [labelledCount]vecDef{
	Sessions:      {"commucat_sessions", "Established sessions by transport.", "transport"},
	TransportUp:   {"commucat_transport_up", "1 while the transport serves.", "transport"},
	PluginUp:      {"commucat_plugin_up", "1 while the plugin's process runs.", "plugin"},
	PluginState:   {"commucat_plugin_state", "0 stopped, 1 starting, 2 running, 3 draining, 4 backoff, 5 parked.", "plugin"},
	LedgerBehind:  {"commucat_ledger_behind_records", "Audit records in the spool that a ledger has not taken yet; for spool events that the local disk refuses.", "ledger"},
	PluginStreams: {"commucat_plugin_streams", "Streams that the plugin's process carries or has handed over.", "plugin"},
}
