# The program itself on tiny checkpoints: each script is one test; 77 means skipped.
set(scripts videos checkpoints bad_input full_disk interrupt ledger drop_in memory)
if(NOT EM_MEDIA)
  set(scripts y4m)
endif()
foreach(name ${scripts})
  add_test(NAME e2e.${name}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/e2e/${name}.sh $<TARGET_FILE:echomimic> ${CMAKE_SOURCE_DIR}/share)
  set_tests_properties(e2e.${name} PROPERTIES LABELS e2e TIMEOUT 600 SKIP_RETURN_CODE 77)
endforeach()
if(EM_NET)
  add_test(NAME e2e.net COMMAND ${CMAKE_SOURCE_DIR}/tests/e2e/net.sh
    $<TARGET_FILE:echomimic> ${CMAKE_SOURCE_DIR}/share $<TARGET_FILE:net_server>)
  set_tests_properties(e2e.net PROPERTIES LABELS "e2e;net" TIMEOUT 600)
endif()
# Steps of the jobs that are cut short: enough to be caught in the middle, and no more where each takes a second.
set(steps 300)
set(timeout_seconds 600)
if(EM_SANITIZE MATCHES thread)
  set(steps 12)
  set(timeout_seconds 1800)
endif()
# The checklist of the memory modes, and several jobs at once. On a GPU: docs/TESTING.md.
foreach(device cpu far)
  add_test(NAME e2e.modes.${device}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/e2e/modes.sh $<TARGET_FILE:echomimic_far> ${device})
  add_test(NAME e2e.parallel.${device}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/e2e/parallel.sh $<TARGET_FILE:echomimic_far> ${device} ${steps})
  set_tests_properties(e2e.modes.${device} e2e.parallel.${device} PROPERTIES
    LABELS e2e TIMEOUT ${timeout_seconds})
endforeach()
