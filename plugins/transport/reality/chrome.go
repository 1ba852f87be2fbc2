package reality

import (
	"crypto/rand"
	"encoding/hex"
	"errors"

	tls "github.com/refraction-networking/utls"
)

// What Chrome's hello has had since the newest one that utls knows.
const (
	extensionTrustAnchors = 51764 // draft-ietf-tls-trust-anchor-ids

	mldsa44 tls.SignatureScheme = 0x0904
	mldsa65 tls.SignatureScheme = 0x0905
	mldsa87 tls.SignatureScheme = 0x0906
)

// trustAnchors are the relative object identifiers of Chrome 156's roots that have one,
// each with its length before it, behind the length of all.
const trustAnchors = "00b8" +
	"0582df130201" + "0582df130206" + "0582df13020d" + "0582df13020e" + "0582df13020f" + "0582df130212" + "0582df130213" + "0582df130214" +
	"08839a648c9b2d0107" + "08839a648c9b2d0108" + "08839a648c9b2d0109" + "08839a648c9b2d010a" + "08839a648c9b2d010b" + "08839a648c9b2d010c" +
	"08839a648c9b2d010d" + "08839a648c9b2d0112" + "08839a648c9b2d0113" +
	"04d6790901" + "04d6790904" + "04d6790905" + "04d6790906" + "04d6790907" + "04d6790908" + "04d679090a" + "04d679090b" + "04d679090c" + "04d679090d" + "04d679090f"

// chromeSpec is the hello of Chrome 156, as testdata/chrome-156.txt has it from the browser
// itself: that of 133 with ML-DSA behind a GREASE value among the signature algorithms, and
// with the ids of trust anchors. The order of extensions is drawn for each hello.
func chromeSpec() (tls.ClientHelloSpec, error) {
	spec, err := tls.UTLSIdToSpec(tls.HelloChrome_133)
	if err != nil {
		return spec, err
	}
	anchors, err := hex.DecodeString(trustAnchors)
	if err != nil {
		return spec, err
	}
	var b [1]byte
	if _, err := rand.Read(b[:]); err != nil {
		return spec, err
	}
	grease := tls.SignatureScheme(b[0]&0xf0|0x0a) * 0x0101 // RFC 8701
	at := 0
	for i, e := range spec.Extensions {
		if s, ok := e.(*tls.SignatureAlgorithmsExtension); ok {
			s.SupportedSignatureAlgorithms = append([]tls.SignatureScheme{grease, mldsa44, mldsa65, mldsa87}, s.SupportedSignatureAlgorithms...)
			at = i
		}
	}
	if at == 0 {
		return spec, errors.New("the hello of Chrome has no signature algorithms to change")
	}
	last := len(spec.Extensions) - 1 // GREASE stays first and last
	list := append(spec.Extensions[:last:last], &tls.GenericExtension{Id: extensionTrustAnchors, Data: anchors}, spec.Extensions[last])
	spec.Extensions = tls.ShuffleChromeTLSExtensions(list)
	return spec, nil
}
