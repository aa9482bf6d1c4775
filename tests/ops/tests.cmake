# Every op against the reference, and the same where oneDNN (and with it our own loops) may use AVX2 only,
# or AVX-512 without bfloat16.
add_executable(checkops ops/bench.c ops/cases.c ops/checkops.c ops/guard.c ops/maker.c ops/pieces.c)
target_link_libraries(checkops PRIVATE em_far em_core)
foreach(isa all avx2 avx512_core)
  string(TOUPPER ${isa} cap)
  add_test(NAME ops.checkops.${isa} COMMAND checkops --seed 1)
  set_tests_properties(ops.checkops.${isa} PROPERTIES
    LABELS ops TIMEOUT 600 ENVIRONMENT "DNNL_MAX_CPU_ISA=${cap}")
endforeach()

# The same on a device whose memory the host cannot touch: the harness itself keeps its hands off.
add_test(NAME ops.checkops.far COMMAND checkops --seed 1 --device far)
set_tests_properties(ops.checkops.far PROPERTIES LABELS ops TIMEOUT 600)
