// Check on this machine that an ONNX file made by vitzoo computes what it did when it was exported.
//   g++ -std=c++17 selfcheck.cc -lonnxruntime -o selfcheck && ./selfcheck model.onnx      the exit code is 3 if an output differs
// It needs onnxruntime's C++ API and nlohmann's json.hpp. Append an execution provider to `options` to check a device.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>
#include <string>
#include <vector>

using nlohmann::json;

static uint32_t hashed(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

struct Input {
  std::string name, type;
  std::vector<int64_t> shape;
  bool raw() const { return type == "uint8"; }
};

// A batch of noise, and of ramps that differ between channels and axes; `first` is the image of its first row.
template <class T> static std::vector<T> batch(const Input& input, int first) {
  const auto& s = input.shape;
  const int64_t n = s[0], c = input.raw() ? s[3] : s[1], h = input.raw() ? s[1] : s[2], w = input.raw() ? s[2] : s[3];
  std::vector<T> data(n * c * h * w);
  for (int64_t row = 0; row < n; row++)
    for (int64_t k = 0; k < c; k++)
      for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++) {
          const int64_t index = (k * h + y) * w + x, ramps = (k + 1) * x * 256 / w + (k + 2) * y * 256 / h;
          const int byte = (row + first) % 2 ? ramps % 256 : hashed(index) >> 24;
          if (input.raw()) data[((row * h + y) * w + x) * c + k] = byte;
          else data[row * c * h * w + index] = static_cast<T>((byte - 128) / 64.0);
        }
  return data;
}

// The largest difference of one image's output, relative to its largest value.
static double difference(const float* x, int64_t size, const json& wanted, int image) {
  const std::vector<double> expected = wanted["values"][image];
  const double largest = wanted["largest"][image], scale = largest > 0 ? largest : 1;
  double far = 0, squares = 0, projection = 0;
  const auto add = [&far](double d) { far = std::isfinite(d) ? std::max(far, std::fabs(d)) : INFINITY; };
  for (size_t i = 0; i < expected.size(); i++) {
    const int64_t place = static_cast<int64_t>(expected.size()) < size ? hashed(i + (1u << 31)) % size : i;
    add(x[place] - expected[i]);
  }
  for (int64_t i = 0; i < size; i++) {
    squares += static_cast<double>(x[i]) * x[i];
    projection += x[i] * ((hashed(i + (1u << 30)) >> 24) / 128.0 - 1);
  }
  add((std::sqrt(squares) - wanted["norm"][image].get<double>()) / std::sqrt(size));
  add((projection - wanted["projection"][image].get<double>()) / std::sqrt(size));
  return far / scale;
}

int main(int argc, char** argv) try {
  if (argc < 2) return std::fprintf(stderr, "usage: selfcheck model.onnx\n"), 2;
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "selfcheck");
  Ort::SessionOptions options;
  Ort::Session session(env, argv[1], options);
  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("vit_zoo.selfcheck", allocator);
  if (!text) return std::fprintf(stderr, "the file has no self-check\n"), 2;
  const json check = json::parse(text.get());
  const Input input{check["input"]["name"], check["input"]["type"], check["input"]["shape"]};
  std::vector<const char*> names;
  for (const json& output : check["outputs"]) names.push_back(output["name"].get_ref<const std::string&>().c_str());
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const char* given[] = {input.name.c_str()};
  bool failed = false;
  for (int first = 0; first < (input.shape[0] == 1 ? 2 : 1); first++) {
    auto bytes = batch<uint8_t>(input, first);
    auto floats = batch<float>(input, first);
    const size_t dims = input.shape.size();
    auto images = input.raw() ? Ort::Value::CreateTensor(memory, bytes.data(), bytes.size(), input.shape.data(), dims)
                              : Ort::Value::CreateTensor(memory, floats.data(), floats.size(), input.shape.data(), dims);
    const auto outputs = session.Run(Ort::RunOptions{}, given, &images, 1, names.data(), names.size());
    for (size_t i = 0; i < outputs.size(); i++) {
      const json& wanted = check["outputs"][i];
      const auto shape = outputs[i].GetTensorTypeAndShapeInfo().GetShape();
      double far = shape == wanted["shape"].get<std::vector<int64_t>>() ? 0 : INFINITY;
      const int64_t size = outputs[i].GetTensorTypeAndShapeInfo().GetElementCount() / input.shape[0];
      for (int64_t row = 0; far < INFINITY && row < input.shape[0]; row++)
        far = std::max(far, difference(outputs[i].GetTensorData<float>() + row * size, size, wanted, (row + first) % 2));
      const double allowed = wanted["tolerance"];
      failed |= !(far <= allowed);
      std::printf("%s: %.1e, allowed %.0e%s\n", names[i], far, allowed, far <= allowed ? "" : "  FAILED");
    }
  }
  return failed ? 3 : 0;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 1;
}
