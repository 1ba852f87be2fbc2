package client

// start begins the showing, once.
func (in *inbox) start() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.started || in.handle == nil || in.quit.Load() {
		return
	}
	in.started = true
	go in.show()
}

// show runs the handler, one message after the other.
func (in *inbox) show() {
	defer close(in.stopped)
	var batch []Message
	for {
		in.mu.Lock()
		for len(in.ready) == 0 && !in.unread && !in.quit.Load() {
			in.wake.Wait()
		}
		if in.quit.Load() {
			in.mu.Unlock()
			return
		}
		batch, in.ready = in.ready, batch[:0]
		in.readyBytes = 0
		in.mu.Unlock()

		if len(batch) == 0 {
			var err error
			if batch, err = in.back(); err != nil {
				in.fail(err)
				return
			}
		}
		if !in.each(batch) {
			in.halt()
			return
		}
		clear(batch)
		if cap(batch) > 2*showAhead {
			batch = nil
		}
	}
}

// back reads messages from the store. When there are none, everything that comes
// goes through memory again.
func (in *inbox) back() ([]Message, error) {
	in.storing.Lock()
	defer in.storing.Unlock()
	batch, err := in.store.Inbox(showAhead / 4)
	if err == nil && len(batch) == 0 {
		in.mu.Lock()
		in.unread = false
		in.mu.Unlock()
	}
	return batch, err
}

// each shows a batch; false: the showing ends.
func (in *inbox) each(batch []Message) bool {
	var position [1]uint64
	for i := range batch {
		m := &batch[i]
		if in.quit.Load() {
			return false
		}
		if err := in.handle(*m); err != nil {
			return false // it stays in the store, with all that follow
		}
		if m.Ephemeral {
			continue
		}
		position[0] = m.Position
		if err := in.store.Shown(position[:]); err != nil {
			in.fail(err)
			return false
		}
		in.taken(m)
	}
	return true
}

// taken counts a message that has left the store.
func (in *inbox) taken(m *Message) {
	in.mu.Lock()
	in.held--
	in.heldBytes -= cost(m)
	room := in.starving && in.held <= MaxInbox/2 && in.heldBytes <= MaxInboxBytes/2
	if room {
		in.starving = false
	}
	in.mu.Unlock()
	if room {
		// The relay repeats on a new connection only.
		in.onRoom()
	}
}

// halt lets go of the memory that a handler will not use any more.
func (in *inbox) halt() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ready, in.readyBytes, in.unread = nil, 0, true
}

func (in *inbox) fail(err error) {
	err = storeFailed(err)
	in.mu.Lock()
	in.failed = err
	in.mu.Unlock()
	in.onFail(err)
}

func (in *inbox) err() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.failed
}

// end ends the showing after the handler's present call.
func (in *inbox) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.quit.Store(true)
	in.wake.Broadcast()
}

// wait returns when that call has ended.
func (in *inbox) wait() {
	in.mu.Lock()
	started := in.started
	in.mu.Unlock()
	if started {
		<-in.stopped
	}
}
