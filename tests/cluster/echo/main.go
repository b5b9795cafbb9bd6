// A help desk's stand-in behind a gateway: it answers with what reached it, logs it, and holds streams open.
package main

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"time"
)

func main() {
	// No ServeMux: it would clean paths that have to be seen as they came.
	log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %q", r.Method, r.RequestURI)
		w.Header().Set("X-Echo", "1")
		switch {
		case r.Header.Get("Upgrade") != "":
			talk(w, r)
		case strings.HasSuffix(r.URL.Path, "/stream"):
			stream(w, r)
		default:
			tell(w, r)
		}
	})))
}

func tell(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"method": r.Method, "host": r.Host, "uri": r.RequestURI, "path": r.URL.Path, "proto": r.Proto, "remote": r.RemoteAddr,
		"headers": r.Header,
	})
}

// stream writes lines for as long as somebody listens.
func stream(w http.ResponseWriter, r *http.Request) {
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(w, "tick %d\n", n); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// talk accepts any upgrade, a WebSocket's as RFC 6455 asks for it, and sends every byte back as it came, or lines.
func talk(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Echo: 1\r\n", r.Header.Get("Upgrade"))
	if key := r.Header.Get("Sec-WebSocket-Key"); key != "" {
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(conn, "Sec-WebSocket-Accept: %s\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	}
	fmt.Fprint(conn, "\r\n")
	if !strings.HasSuffix(r.URL.Path, "/stream") {
		io.Copy(conn, buffered)
		return
	}
	for n := 0; err == nil; n++ {
		_, err = fmt.Fprintf(conn, "tick %d\n", n)
		time.Sleep(100 * time.Millisecond)
	}
}
