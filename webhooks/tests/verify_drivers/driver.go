package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		header := http.Header{}
		for place, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			if value := fields[place+1]; value != "-" {
				text, _ := base64.StdEncoding.DecodeString(value)
				header.Set(name, string(text))
			}
		}
		body, _ := base64.StdEncoding.DecodeString(fields[4])
		fmt.Println(Genuine(fields[0], header, body))
	}
}
