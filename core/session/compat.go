package session

import (
	"context"
	"strings"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
)

// cliAgent is how the reference's command-line client names itself; it sends and
// expects clear frames (ccp1.md 4.2).
const cliAgent = "CommuCat-CLI/"

// preview works out, before message 2, which user a peer of the reference will be:
// it reads user and token there. Nothing is written; the token text does not open
// anything until establishment has stored its hash.
func (o *opening) preview(ctx context.Context, ext *ccp.Ext) error {
	req, err := o.compatRequest()
	if err != nil {
		return err
	}
	g, err := o.srv.opt.Accounts.Preview(ctx, req)
	if err != nil {
		return fromAccount(err)
	}
	if o.token, err = account.NewToken(o.srv.opt.Rand); err != nil {
		return refused(ccp.CodeHandshake, "token", err)
	}
	if g.NewUser {
		o.newUser = g.User.ID
	}
	ext.Session = o.token
	ext.User = &ccp.User{ID: g.User.ID, Handle: g.User.Handle, DisplayName: g.User.DisplayName, AvatarURL: g.User.AvatarURL}
	return nil
}

func (o *opening) compatRequest() (account.Request, error) {
	req, err := o.request(o.hello.Identity)
	req.CountDevices = true
	req.Token, req.NewUser = o.token, o.newUser
	return req, err
}

// compat establishes a peer without proof-binding: established when message 3 was
// right, and the Ack goes in clear.
func (o *opening) compat(ctx context.Context) (*Session, error) {
	req, err := o.compatRequest()
	if err != nil {
		return nil, err
	}
	ses, err := o.newSession(&req)
	if err != nil {
		return nil, err
	}
	ok := false
	defer func() {
		if !ok {
			ses.discard()
		}
	}()
	grant, err := o.srv.opt.Accounts.Establish(ctx, req)
	if err != nil {
		return nil, fromAccount(err)
	}
	ses.adopt(&grant)
	if err := ses.attach(ctx, 0); err != nil {
		return nil, err
	}
	grant.Renewed = true // this peer keeps what the Ack brings, and needs it
	ack := o.ack(&grant, o.session)
	if err := o.writeClear(ccp.TypeAck, 0, 2, ack.Marshal()); err != nil {
		return nil, err
	}
	ok = true
	o.started(ses, nil)
	return ses, nil
}

// dataMode decides how frames travel after the handshake (ccp1.md 4.2).
func (o *opening) dataMode() mode {
	switch {
	case !o.srv.opt.ClearFrames:
		return modeRecords
	case strings.HasPrefix(o.facts.UserAgent, cliAgent):
		return modeClear
	}
	return modeUndecided
}
