package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// referenceFlag makes this program the one that R is measured with: referenceFlag GOROUTINES PERCENT FOLDER FILE…
const referenceFlag = "-reference-program"

// What the reference program does: it reads blocks and writes so many percent of the bytes that it read. For R that is what a
// 300-byte line of nova becomes as JSON with the fields that the budgets were made for.
const (
	referenceBlock   = 256 << 10
	referencePercent = 180
)

// reference reads the files, as many at a time as there are goroutines, writes one output for each into the folder, and prints
// how many lines there are.
func reference(out io.Writer, args []string) error {
	var workers, percent int
	if len(args) < 4 {
		return errors.New("reading arguments: expected goroutines, percent, a folder and files")
	}
	if _, err := fmt.Sscan(args[0]+" "+args[1], &workers, &percent); err != nil {
		return fmt.Errorf("reading arguments: %w", err)
	}
	dir, files := args[2], args[3:]
	work := make(chan int)
	lines, errs := make([]int64, len(files)), make([]error, len(files))
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			in := make([]byte, referenceBlock)
			text := bytes.Repeat([]byte("{\"0\":1}\n"), referenceBlock*percent/100/8+1)
			for i := range work {
				lines[i], errs[i] = referenceFile(files[i], fmt.Sprintf("%s/reference%d", dir, i), in, text, percent)
			}
		})
	}
	for i := range files {
		work <- i
	}
	close(work)
	wg.Wait()
	var sum int64
	for _, n := range lines {
		sum += n
	}
	_, err := fmt.Fprintln(out, sum)
	return errors.Join(append(errs, err)...)
}

func referenceFile(from, to string, in, text []byte, percent int) (lines int64, err error) {
	r, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }() // only read
	w, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for {
		n, err := r.Read(in)
		if n > 0 {
			block := in[:n]
			for {
				i := bytes.IndexByte(block, '\n')
				if i < 0 {
					break
				}
				lines++
				block = block[i+1:]
			}
			if _, err := w.Write(text[:n*percent/100]); err != nil {
				return lines, err
			}
		}
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
	}
}
