from benchmarks.instructions import main

main()
