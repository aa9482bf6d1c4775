# em_embed(target symbol file): compiles the bytes of a tracked file into the target as
#     const unsigned char SYMBOL[];  const size_t SYMBOL_bytes;
# No tool but CMake is needed; a changed file is embedded anew.
function(em_embed target symbol file)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${symbol}.c)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DIN=${file} -DOUT=${out} -DSYMBOL=${symbol}
      -P ${CMAKE_SOURCE_DIR}/cmake/embed_file.cmake
    DEPENDS ${file} ${CMAKE_SOURCE_DIR}/cmake/embed_file.cmake
    VERBATIM)
  # An object library: a generated file is known in the folder that generates it alone.
  add_library(${symbol} OBJECT ${out})
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${symbol}>)
endfunction()
