-- The tables of the reference server, from the facts of its description.
CREATE TABLE app_user (user_id text PRIMARY KEY, handle text NOT NULL UNIQUE, display_name text, avatar_url text,
	created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, domain text NOT NULL DEFAULT 'local', UNIQUE (handle, domain));
CREATE TABLE user_device (opaque_id text PRIMARY KEY, user_id text NOT NULL REFERENCES app_user ON DELETE CASCADE, pubkey bytea NOT NULL,
	status text NOT NULL, created_at timestamptz NOT NULL);
CREATE TABLE session (opaque_id text PRIMARY KEY, user_id text NOT NULL REFERENCES app_user ON DELETE CASCADE,
	device_id text NOT NULL REFERENCES user_device ON DELETE CASCADE, tls_fingerprint text NOT NULL, created_at timestamptz NOT NULL, ttl_seconds bigint NOT NULL);
CREATE TABLE device_key_event (event_id text PRIMARY KEY, device_id text NOT NULL REFERENCES user_device ON DELETE CASCADE,
	public_key bytea NOT NULL, recorded_at timestamptz NOT NULL);
CREATE TABLE chat_group (group_id text PRIMARY KEY, owner_device text NOT NULL REFERENCES user_device ON DELETE CASCADE, created_at timestamptz NOT NULL);
CREATE TABLE group_member (group_id text NOT NULL REFERENCES chat_group ON DELETE CASCADE, device_id text NOT NULL REFERENCES user_device ON DELETE CASCADE,
	role text NOT NULL, joined_at timestamptz NOT NULL, PRIMARY KEY (group_id, device_id));
CREATE TABLE federation_peer (domain text PRIMARY KEY, endpoint text NOT NULL, public_key bytea NOT NULL, status text NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE idempotency (key text NOT NULL, scope text NOT NULL, created_at timestamptz NOT NULL, PRIMARY KEY (key, scope));
CREATE TABLE relay_queue (envelope_id text PRIMARY KEY, channel_id text NOT NULL, payload bytea NOT NULL, deliver_after timestamptz NOT NULL, expires_at timestamptz NOT NULL);
CREATE INDEX ON relay_queue (channel_id, deliver_after);
CREATE TABLE inbox_offset (entity_id text NOT NULL, channel_id text NOT NULL, last_envelope_id text, updated_at timestamptz NOT NULL, PRIMARY KEY (entity_id, channel_id));
CREATE TABLE device_pairing (pair_code text PRIMARY KEY, user_id text NOT NULL REFERENCES app_user ON DELETE CASCADE,
	issuer_device_id text NOT NULL REFERENCES user_device ON DELETE CASCADE, issued_at timestamptz NOT NULL, expires_at timestamptz NOT NULL,
	redeemed_at timestamptz, redeemed_device_id text REFERENCES user_device ON DELETE SET NULL, public_key bytea, attempts integer NOT NULL DEFAULT 0);
CREATE TABLE user_blob (user_id text NOT NULL REFERENCES app_user ON DELETE CASCADE, key text NOT NULL, payload text NOT NULL, updated_at timestamptz NOT NULL, PRIMARY KEY (user_id, key));
CREATE TABLE server_secret (name text NOT NULL, version bigint NOT NULL, secret bytea NOT NULL, public bytea, metadata jsonb NOT NULL DEFAULT '{}',
	created_at timestamptz NOT NULL DEFAULT now(), valid_after timestamptz NOT NULL, rotates_at timestamptz NOT NULL, expires_at timestamptz NOT NULL, PRIMARY KEY (name, version));
CREATE TABLE device_rotation_audit (rotation_id text PRIMARY KEY, device_id text NOT NULL REFERENCES user_device ON DELETE CASCADE,
	old_public_key bytea NOT NULL, new_public_key bytea NOT NULL, signature bytea NOT NULL, nonce bytea, proof_expires_at timestamptz NOT NULL,
	applied_at timestamptz NOT NULL, UNIQUE (device_id, new_public_key));
CREATE TABLE federation_outbox (outbox_id text PRIMARY KEY, destination_domain text NOT NULL, endpoint text NOT NULL, payload jsonb NOT NULL, public_key bytea NOT NULL,
	attempts integer NOT NULL DEFAULT 0, next_attempt_at timestamptz NOT NULL, last_error text, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE friend_requests (id text PRIMARY KEY, from_user_id text NOT NULL, to_user_id text NOT NULL, status text NOT NULL DEFAULT 'pending', message text,
	created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(), UNIQUE (from_user_id, to_user_id));
CREATE TABLE remote_user_cache (user_id text PRIMARY KEY, domain text NOT NULL, handle text NOT NULL, display_name text, avatar_url text, profile_data jsonb NOT NULL,
	cached_at timestamptz NOT NULL, expires_at timestamptz NOT NULL, last_fetched_at timestamptz NOT NULL);
CREATE TABLE federation_peer_status (domain text PRIMARY KEY, endpoint text NOT NULL, public_key bytea NOT NULL, last_seen_at timestamptz, last_error text,
	error_count integer NOT NULL DEFAULT 0, status text NOT NULL DEFAULT 'unknown', created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE federated_friend_requests (request_id text PRIMARY KEY, from_user_id text NOT NULL, to_user_id text NOT NULL, from_domain text NOT NULL, to_domain text NOT NULL,
	message text, status text NOT NULL DEFAULT 'pending', federation_event_id text, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE device_pq_keys (device_id text PRIMARY KEY REFERENCES user_device ON DELETE CASCADE, kem_public bytea NOT NULL, signature_public bytea NOT NULL,
	updated_at timestamptz NOT NULL DEFAULT now());
