# The real program, killed, starved and overworked. ctest runs a part of each that fits into minutes;
# `make torture` runs all of it.
add_library(torture_killer MODULE torture/killer.c)
target_link_libraries(torture_killer PRIVATE em_flags ${CMAKE_DL_LIBS})

function(em_torture name)
  add_executable(torture_${name} torture/${name}.c torture/harness.c)
  target_link_libraries(torture_${name} PRIVATE em_core PkgConfig::SQLITE PkgConfig::JANSSON)
endfunction()

em_torture(kill)
add_test(NAME torture.kill COMMAND torture_kill $<TARGET_FILE:echomimic> ${CMAKE_SOURCE_DIR}/share
  $<TARGET_FILE:torture_killer> --points 60 --seed 1)
set_tests_properties(torture.kill PROPERTIES LABELS "e2e;fault" TIMEOUT 900)

em_torture(hundred)
add_test(NAME torture.hundred COMMAND torture_hundred $<TARGET_FILE:echomimic> ${CMAKE_SOURCE_DIR}/share)
set_tests_properties(torture.hundred PROPERTIES LABELS "e2e" TIMEOUT 900)

em_torture(soak)
add_test(NAME torture.soak COMMAND torture_soak $<TARGET_FILE:echomimic> ${CMAKE_SOURCE_DIR}/share --jobs 200)
set_tests_properties(torture.soak PROPERTIES LABELS "e2e" TIMEOUT 900)
