// A help desk's stand-in behind a gateway: it answers with what reached it, and holds streams open.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

func main() {
	// No ServeMux: it would clean paths that have to be seen as they came.
	http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", "1")
		if r.URL.Path == "/help/stream" {
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
		json.NewEncoder(w).Encode(map[string]any{
			"method": r.Method, "host": r.Host, "uri": r.RequestURI, "proto": r.Proto, "headers": r.Header,
		})
	}))
}
