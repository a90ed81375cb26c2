// Posts files with Go's default client.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	for _, name := range os.Args[2:] {
		file, err := os.Open(name)
		if err != nil {
			panic(err)
		}
		// Read through a buffer, whose length Go does not know: the body goes out in chunks.
		response, err := http.Post(os.Args[1], "application/json", bufio.NewReader(file))
		if err != nil {
			panic(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			panic(err)
		}
		response.Body.Close()
		fmt.Println(response.StatusCode, string(body))
	}
}
