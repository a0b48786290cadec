package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var seconds = regexp.MustCompile(`^[0-9]{1,12}$`)

// Genuine takes the secret (whsec_…), the request's header and its raw body.
func Genuine(secret string, header http.Header, body []byte) bool {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	if id == "" || !seconds.MatchString(timestamp) {
		return false
	}
	sent, _ := strconv.ParseInt(timestamp, 10, 64)
	if age := time.Now().Unix() - sent; age > 300 || age < -300 {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	expected := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	// While a secret rotates there are two signatures: one of them must match.
	for _, one := range strings.Split(header.Get("webhook-signature"), " ") {
		if hmac.Equal(expected, []byte(one)) {
			return true
		}
	}
	return false
}
