# SPDX-License-Identifier: Apache-2.0
# Draws docs/*.svg from docs/server_sweep.tsv (tests/bench/server_sweep.py):
#   cd docs && gnuplot plots.gnuplot
set datafile separator "\t"
set terminal svg size 640,400 font "sans,12" background "white"
set key outside bottom center horizontal
set grid
set style data linespoints

# Columns: factor connections bytes depth transport storage kind IOPS MiB/s CPU-us/request ...
rows(factor, kind, bytes) = sprintf( \
    "< awk -F'\\t' '$1 == \"%s\" && $7 == \"%s\" && (%d == 0 || $3 == %d)' server_sweep.tsv", \
    factor, kind, bytes, bytes)

set output "server_connections.svg"
set title "Connections: requests of 4 KiB, 32 in flight on each"
set xlabel "connections"
set ylabel "thousand requests per second"
set y2label "CPU of the server, µs per request"
set y2tics
set ytics nomirror
set xtics (1, 2, 4, 8)
set xrange [1:8]
set yrange [0:*]
set y2range [0:*]
plot rows("connections", "read", 4096) using 2:($8 / 1000) title "read", \
     rows("connections", "write", 4096) using 2:($8 / 1000) title "write", \
     rows("connections", "read", 4096) using 2:10 axes x1y2 dashtype 2 title "read, CPU", \
     rows("connections", "write", 4096) using 2:10 axes x1y2 dashtype 2 title "write, CPU"

set output "server_request_size.svg"
set title "Request size: two connections"
set xlabel "KiB"
set ylabel "MiB per second"
set y2label "CPU of the server, s per GiB"
set logscale x 4
set xtics (4, 16, 64, 256, 1024, 4096, 32768)
set xrange [4:32768]
plot rows("bytes", "read", 0) using ($3 / 1024):9 title "read", \
     rows("bytes", "write", 0) using ($3 / 1024):9 title "write", \
     rows("bytes", "read", 0) using ($3 / 1024):11 axes x1y2 dashtype 2 title "read, CPU", \
     rows("bytes", "write", 0) using ($3 / 1024):11 axes x1y2 dashtype 2 title "write, CPU"

set output "server_depth.svg"
set title "Depth: requests of 4 KiB on four connections"
set xlabel "requests in flight on each connection"
set ylabel "thousand requests per second"
set y2label "p99 latency, µs"
set xtics (1, 4, 16, 64)
set xrange [1:64]
plot rows("depth", "read", 0) using 4:($8 / 1000) title "read", \
     rows("depth", "write", 0) using 4:($8 / 1000) title "write", \
     rows("depth", "read", 0) using 4:12 axes x1y2 dashtype 2 title "read, p99", \
     rows("depth", "write", 0) using 4:12 axes x1y2 dashtype 2 title "write, p99"
