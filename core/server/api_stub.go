package server

import (
	"context"
	"net/http"

	"github.com/commucat/commucat/core/front"
)

func (s *Server) restAPI() (front.API, error) { return nil, nil }
func (s *Server) openAdmin(context.Context) error { s.admin = &http.Server{}; return nil }
