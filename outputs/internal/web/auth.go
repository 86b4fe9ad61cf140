package web

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Auth is the section auth of an output that speaks HTTP: a name and a password, or a token, or nothing.
type Auth struct {
	Username string      `yaml:"username" doc:"Name for basic authentication."`
	Password conf.Secret `yaml:"password" doc:"Password for basic authentication; one from a file or credential is read again after a 401."`
	Bearer   conf.Secret `yaml:"bearer" doc:"Token sent as Authorization: Bearer; one from a file or credential is read again after a 401."`
}

// Validate finds two ways at once, half of one, and secrets that cannot stand in a header.
func (a Auth) Validate() error {
	var errs []error
	fault := func(key, message string) { errs = append(errs, conf.KeyError{Key: key, Err: errors.New(message)}) }
	basic := a.Username != "" || a.Password.Reveal() != ""
	switch {
	case basic && a.Bearer.Reveal() != "":
		fault("bearer", "username and password, or bearer, not both")
	case a.Username == "" && basic:
		fault("password", "a password needs a username")
	case a.Username != "" && a.Password.Reveal() == "":
		fault("username", "a username needs a password")
	}
	if strings.ContainsRune(a.Username, ':') {
		fault("username", "a username holds no colon: it ends at the first one")
	}
	if hasControl(a.Username) {
		fault("username", "a username holds no control characters")
	}
	if hasControl(a.Password.Reveal()) {
		fault("password", "the password holds a control character or a newline")
	}
	if err := checkToken(a.Bearer); err != nil {
		fault("bearer", err.Error())
	}
	return errors.Join(errs...)
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// checkToken refuses what would not arrive as it is. The error does not quote it.
func checkToken(s conf.Secret) error {
	for _, c := range []byte(s.Reveal()) {
		if c <= ' ' || c >= 0x7f {
			return errors.New("the token holds a space, a newline or another character that no token has")
		}
	}
	return nil
}

// Apply adds the authentication to a request.
func (a Auth) Apply(r *http.Request) {
	switch {
	case a.Bearer.Reveal() != "":
		r.Header.Set("Authorization", "Bearer "+a.Bearer.Reveal())
	case a.Username != "":
		r.SetBasicAuth(a.Username, a.Password.Reveal())
	}
}

// Secrets returns what must not stand in a message, as it would be sent or echoed: see Hide.
func (a Auth) Secrets() []string {
	var all []string
	if s := a.Bearer.Reveal(); s != "" {
		all = append(all, s)
	}
	if s := a.Password.Reveal(); s != "" {
		all = append(all, base64.StdEncoding.EncodeToString([]byte(a.Username+":"+s)), s)
	}
	return all
}

// Resolve reads the secrets that come from files, credentials or the environment anew. What does not pass Validate is an error.
func (a Auth) Resolve(lookup conf.Lookup) (Auth, error) {
	var err error
	if a.Password, err = a.Password.Resolve(lookup); err != nil {
		return Auth{}, err
	}
	if a.Bearer, err = a.Bearer.Resolve(lookup); err != nil {
		return Auth{}, err
	}
	return a, a.Validate()
}

// Credentials are an output's Auth in use, safe for concurrent use.
type Credentials struct {
	lookup conf.Lookup

	mu   sync.RWMutex // guards auth
	auth Auth
}

// NewCredentials holds a. Reread looks for its secrets with lookup, which is conf.SystemLookup() but in tests.
func NewCredentials(a Auth, lookup conf.Lookup) *Credentials {
	return &Credentials{auth: a, lookup: lookup}
}

// Auth returns the present ones.
func (c *Credentials) Auth() Auth {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.auth
}

// Apply adds the authentication to a request.
func (c *Credentials) Apply(r *http.Request) { c.Auth().Apply(r) }

// Reread reads the secrets again, after a 401. It reports whether they are others now. After an error the former ones stay.
func (c *Credentials) Reread() (changed bool, err error) {
	old := c.Auth()
	a, err := old.Resolve(c.lookup)
	if err != nil {
		return false, err
	}
	if a.Password.Equal(old.Password) && a.Bearer.Equal(old.Bearer) {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.auth = a
	return true, nil
}
