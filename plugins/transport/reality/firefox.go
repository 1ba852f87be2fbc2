package reality

import (
	"errors"
	"slices"

	tls "github.com/refraction-networking/utls"
)

// firefoxSpec is the hello of Firefox 153, as testdata/firefox-153.txt has it from the browser
// itself: that of 120 with X25519MLKEM768 and without one suite, with signed certificate
// timestamps and compressed certificates. Its extensions have one order.
func firefoxSpec() (tls.ClientHelloSpec, error) {
	spec, err := tls.UTLSIdToSpec(tls.HelloFirefox_120)
	if err != nil {
		return spec, err
	}
	spec.CipherSuites = slices.DeleteFunc(spec.CipherSuites, func(s uint16) bool { return s == tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA })
	var list []tls.TLSExtension
	changed := 0
	for _, e := range spec.Extensions {
		switch e := e.(type) {
		case *tls.SupportedCurvesExtension:
			e.Curves = append([]tls.CurveID{tls.X25519MLKEM768}, e.Curves...)
			changed++
		case *tls.KeyShareExtension:
			e.KeyShares = append([]tls.KeyShare{{Group: tls.X25519MLKEM768}}, e.KeyShares...)
			list = append(list, new(tls.SCTExtension))
			changed++
		case *tls.GREASEEncryptedClientHelloExtension:
			list = append(list, &tls.UtlsCompressCertExtension{Algorithms: []tls.CertCompressionAlgo{
				tls.CertCompressionZlib, tls.CertCompressionBrotli, tls.CertCompressionZstd,
			}})
			changed++
		}
		list = append(list, e)
	}
	if changed != 3 {
		return spec, errors.New("the hello of Firefox is not the one that was to be changed")
	}
	spec.Extensions = list
	return spec, nil
}

// oneShare makes the X25519 share that inside X25519MLKEM768, as Firefox has it. It comes
// between ApplyPreset and the making of the hello.
func oneShare(conn *tls.UConn) error {
	keys := conn.HandshakeState.State13.KeyShareKeys
	if keys == nil || keys.MlkemEcdhe == nil {
		return errors.New("the hello of Firefox has no X25519MLKEM768 share")
	}
	for _, e := range conn.Extensions {
		shares, ok := e.(*tls.KeyShareExtension)
		if !ok {
			continue
		}
		for i := range shares.KeyShares {
			if shares.KeyShares[i].Group == tls.X25519 {
				shares.KeyShares[i].Data = keys.MlkemEcdhe.PublicKey().Bytes()
				keys.Ecdhe = keys.MlkemEcdhe
				return nil
			}
		}
	}
	return errors.New("the hello of Firefox has no X25519 share")
}
